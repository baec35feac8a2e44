//! `isolab inspect`

use std::process::ExitCode;

use anyhow::Result;
use isolab_command::failure;
use isolab_instances::Catalogue;
use serde_json::Value;

use crate::format::print_template;
use crate::summary;

/// Tell all there is to tell of instances, as JSON under podman's names.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  isolab inspect --format '{{.State.ExitCode}}' web")]
pub struct Args {
    /// json, or a template such as {{.State.Status}}.
    #[arg(long, short, value_name = "FORMAT", default_value = "json")]
    format: String,
    /// Names, or ids or beginnings of them.
    #[arg(required = true, value_name = "INSTANCE")]
    instances: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let catalogue = Catalogue::open_default()?;
    let (mut rows, mut code): (Vec<Value>, _) = (Vec::new(), ExitCode::SUCCESS);
    for name in &args.instances {
        match catalogue.find(name) {
            Ok(instance) => {
                let mut row = summary::whole(&instance);
                row["LogPath"] = instance.log_path().display().to_string().into();
                rows.push(row);
            }
            Err(error) => {
                failure::tell(&error);
                code = ExitCode::from(error.exit_code());
            }
        }
    }
    match args.format.as_str() {
        "json" => println!("{}", serde_json::to_string_pretty(&rows)?),
        template => print_template(template, &rows)?,
    }
    Ok(code)
}
