//! `update`: what changes of `linux.resources` is laid over what the container has, and the whole set anew, as runc does
//! it: limits that depend on each other are seen together.

use std::fs::File;
use std::io::{self, BufReader, Read};

use anyhow::{Context, Result, bail};
use isolab_container::oci::LinuxResources;
use serde_json::{Map, Value, json};

use crate::control::expect;
use crate::folder::{Root, Status};
use crate::options::{Limits, Update};
use crate::systemd;

/// Changes limits. Rules about devices stay as they are, as in runc.
pub fn update(root: &Root, options: &Update) -> Result<()> {
    let change = change(options)?;
    let (folder, mut state) = root.open(&options.id)?;
    expect(&folder, &state, "update", &[Status::Created, Status::Running, Status::Paused])?;
    let linux = state.spec.linux_mut().get_or_insert_default();
    let mut merged = serde_json::to_value(linux.resources())?;
    lay_over(&mut merged, change);
    let resources: LinuxResources =
        serde_json::from_value(merged).context("cannot read the resources")?;
    state.memberships().limit(&resources)?;
    if let Some(unit) = &state.unit {
        systemd::set_limits(unit, &resources)?;
    }
    state.spec.linux_mut().get_or_insert_default().set_resources(Some(resources));
    folder.save(&state)
}

fn change(options: &Update) -> Result<Value> {
    let named = named(&options.limits);
    let Some(path) = &options.resources else {
        if named.as_object().is_none_or(Map::is_empty) {
            bail!("nothing to change: name limits, or a file with --resources");
        }
        return Ok(named);
    };
    let reader: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?)
    };
    let mut change = serde_json::from_reader(BufReader::new(reader))
        .with_context(|| format!("cannot parse {}", path.display()))?;
    lay_over(&mut change, named);
    Ok(change)
}

/// The options as `linux.resources` has them.
fn named(limits: &Limits) -> Value {
    let mut named = json!({
        "memory": {
            "limit": limits.memory,
            "reservation": limits.memory_reservation,
            "swap": limits.memory_swap,
            "kernel": limits.kernel_memory,
            "kernelTCP": limits.kernel_memory_tcp,
        },
        "cpu": {
            "shares": limits.cpu_share,
            "quota": limits.cpu_quota,
            "period": limits.cpu_period,
            "burst": limits.cpu_burst,
            "idle": limits.cpu_idle,
            "realtimePeriod": limits.cpu_rt_period,
            "realtimeRuntime": limits.cpu_rt_runtime,
            "cpus": limits.cpuset_cpus,
            "mems": limits.cpuset_mems,
        },
        "pids": { "limit": limits.pids_limit },
        "blockIO": { "weight": limits.blkio_weight },
    });
    drop_absent(&mut named);
    named
}

/// Takes out what is null, and what is empty then.
fn drop_absent(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.values_mut().for_each(drop_absent);
        fields.retain(|_, value| !value.is_null() && *value != json!({}));
    }
}

/// Lays one over the other, field by field; what is null says nothing.
fn lay_over(under: &mut Value, over: Value) {
    match (under, over) {
        (_, Value::Null) => {}
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                lay_over(under.entry(name).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mentioned_stays() {
        let mut under = json!({"memory": {"limit": 5, "swap": 9}, "unified": {"a": "1"}});
        lay_over(&mut under, json!({"memory": {"limit": 6, "swap": null}, "pids": {"limit": 3}}));
        let expected =
            json!({"memory": {"limit": 6, "swap": 9}, "unified": {"a": "1"}, "pids": {"limit": 3}});
        assert_eq!(under, expected);
    }

    #[test]
    fn absent_fields_are_taken_out_to_the_last() {
        let mut value = json!({"a": {"b": null}, "c": {"d": 0, "e": null}});
        drop_absent(&mut value);
        assert_eq!(value, json!({"c": {"d": 0}}));
    }
}
