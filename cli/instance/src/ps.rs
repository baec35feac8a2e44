//! `isolab ps`

use std::process::ExitCode;

use anyhow::{Result, bail};
use isolab_instances::time::about;
use isolab_instances::{Catalogue, Instance};
use serde_json::Value;

use crate::format::{print_table, print_template, printable};
use crate::{networks, summary};

/// List instances: those that run, or all.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  isolab ps -a --filter status=exited\n  \
    isolab ps --format '{{.Names}} {{.Status}}'")]
pub struct Args {
    /// Those that do not run as well.
    #[arg(long, short)]
    all: bool,
    /// Ids only.
    #[arg(long, short)]
    quiet: bool,
    /// Those that fit only: id=, name=, label=NAME[=VALUE], status=, ancestor= (the image), isolation=,
    /// exited=CODE, health=. Of several of one kind, one has to fit.
    #[arg(long, short, value_name = "KIND=VALUE", value_parser = parse_filter)]
    filter: Vec<(String, String)>,
    /// json, table, or a template such as {{.Names}}.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Do not cut ids and commands short.
    #[arg(long)]
    no_trunc: bool,
}

const KINDS: [&str; 8] =
    ["id", "name", "label", "status", "ancestor", "isolation", "exited", "health"];

fn parse_filter(text: &str) -> Result<(String, String), String> {
    let known = text.split_once('=').filter(|(kind, _)| KINDS.contains(kind));
    let (kind, value) =
        known.ok_or_else(|| format!("expected KIND=VALUE, KIND one of {}", KINDS.join(", ")))?;
    Ok((kind.to_owned(), value.to_owned()))
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    // Who asks for a state means it.
    let all = args.all || args.filter.iter().any(|(kind, _)| kind == "status" || kind == "exited");
    let mut instances = Catalogue::open_default()?.all()?;
    instances.retain(|it| (all || it.state.status.is_active()) && fits(it, &args.filter));
    // The newest first, as podman has it.
    instances.sort_by_key(|it| std::cmp::Reverse(it.config.as_ref().map(|config| config.created)));
    let short = |instance: &Instance| match args.no_trunc {
        true => instance.entry.id.clone(),
        false => instance.entry.id.chars().take(12).collect(),
    };
    if args.quiet {
        instances.iter().for_each(|instance| println!("{}", short(instance)));
        return Ok(ExitCode::SUCCESS);
    }
    match args.format.as_str() {
        "json" => {
            let rows: Vec<Value> = instances.iter().map(summary::row).collect();
            println!("{}", serde_json::to_string_pretty(&rows)?);
        }
        "table" => {
            let heads = [
                "INSTANCE ID",
                "IMAGE",
                "COMMAND",
                "CREATED",
                "STATUS",
                "PORTS",
                "ISOLATION",
                "NAMES",
            ];
            let mut lines = vec![heads.map(str::to_owned).to_vec()];
            lines.extend(instances.iter().map(|it| line(it, short(it), args.no_trunc)));
            print_table(&lines);
        }
        "" => bail!("the format is empty"),
        template => {
            let rows: Vec<Value> = instances.iter().map(|it| flat(it, short(it))).collect();
            print_template(template, &rows)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(instance: &Instance, id: String, whole: bool) -> Vec<String> {
    let config = instance.config.as_ref();
    let limit = if whole { usize::MAX } else { 20 };
    vec![
        id,
        config.map_or(String::new(), |it| it.image.clone()),
        config.map_or(String::new(), |it| printable(&it.process.to_string(), limit)),
        config.map_or(String::new(), |it| format!("{} ago", about(it.created.age()))),
        summary::status(instance),
        networks::column(instance),
        instance.entry.level.name().to_owned(),
        instance.name().to_owned(),
    ]
}

/// In a template a list is what a table has of it.
fn flat(instance: &Instance, id: String) -> Value {
    let mut row = summary::row(instance);
    let command = instance.config.as_ref().map_or(String::new(), |it| it.process.to_string());
    for (name, value) in [
        ("ID", id),
        ("Names", instance.name().to_owned()),
        ("Command", command),
        ("Ports", networks::column(instance)),
    ] {
        row[name] = Value::String(value);
    }
    row
}

fn fits(instance: &Instance, filters: &[(String, String)]) -> bool {
    let (entry, state) = (&instance.entry, &instance.state);
    let config = instance.config.as_ref();
    let fits_one = |kind: &str, value: &str| match kind {
        "id" => entry.id.starts_with(value),
        "name" => entry.name.contains(value),
        "status" => state.status.name() == value,
        "isolation" => entry.level.name() == value,
        "exited" => state.finished_at.is_some() && state.exit_code.to_string() == value,
        "health" => state.health.as_ref().is_some_and(|it| it.status.name() == value),
        "ancestor" => config.is_some_and(|it| it.image == value || it.image_id.ends_with(value)),
        _ => config.is_some_and(|it| match value.split_once('=') {
            Some((name, value)) => it.labels.get(name).is_some_and(|label| label == value),
            None => it.labels.contains_key(value),
        }),
    };
    KINDS.iter().all(|kind| {
        let mut of_kind = filters.iter().filter(|(it, _)| it == kind).peekable();
        of_kind.peek().is_none() || of_kind.any(|(_, value)| fits_one(kind, value))
    })
}
