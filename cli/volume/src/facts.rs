//! What is told of a volume, under podman's names for it.

use isolab_isolation::volumes::{VolumeRecord, Volumes};
use serde_json::{Value, json};

/// As `podman volume inspect` has it, and besides what it is, its size and who has it.
pub fn facts(volumes: &Volumes, volume: &VolumeRecord, users: &[String]) -> Value {
    let kind = volume.kind.map_or(Value::Null, |kind| json!(kind));
    let mut options = serde_json::Map::new();
    if volume.kind == Some(isolab_isolation::volumes::Kind::Disk) {
        options.insert("size".to_owned(), volume.size.to_string().into());
    }
    json!({
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": volumes.mount_point(volume),
        "CreatedAt": volume.created,
        "Labels": volume.labels,
        "Scope": "local",
        "Options": options,
        "Anonymous": volume.owner.is_some(),
        "NeedsCopyUp": volume.needs_copy_up,
        "Kind": kind,
        "Size": volumes.size_on_disk(&volume.name),
        "Instances": users,
    })
}
