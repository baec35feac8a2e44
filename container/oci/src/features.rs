//! `features` and `spec`.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use isolab_container::{DEFAULT_PATH, Limits, default_spec};
use serde_json::{Value, json};

/// What this runtime can do (features.md): what is not listed is refused by `create`.
pub fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.1",
        "hooks": [],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"],
                "archs": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "knownFlags": [],
                "supportedFlags": [],
            },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } },
        },
    })
}

/// Writes the usual configuration: a shell in `rootfs`.
pub fn spec(bundle: &Path) -> Result<()> {
    let env = vec![format!("PATH={DEFAULT_PATH}"), "TERM=xterm".to_owned()];
    let spec = default_spec("isolab", vec!["sh".to_owned()], env, Limits::default())?;
    let path = bundle.join("config.json");
    let words = || format!("cannot create {}", path.display());
    let text = serde_json::to_vec_pretty(&spec)?;
    let mut file = File::create_new(&path).with_context(words)?;
    file.write_all(&text).with_context(words)
}
