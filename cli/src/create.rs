//! `isolab create`

use std::process::ExitCode;

use anyhow::Result;
use isolab_command::format::EXIT_OWN_FAILURE;
use isolab_command::logging::Logging;
use isolab_images::Image;
use isolab_instances::{Catalogue, Instance};

use crate::workload::Workload;

/// Make an instance that does not run yet, and print its id.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  isolab create --name web busybox httpd -f && isolab start web")]
pub struct Args {
    #[command(flatten)]
    workload: Workload,
}

/// Runs the command.
pub fn run(args: Args, logging: &Logging) -> Result<ExitCode> {
    let Some(image) = args.workload.image(logging)? else {
        return Ok(ExitCode::from(EXIT_OWN_FAILURE));
    };
    let instance = create(&Catalogue::open_default()?, &args.workload, &image)?;
    println!("{}", instance.entry.id);
    Ok(ExitCode::SUCCESS)
}

/// Makes the instance.
pub fn create(catalogue: &Catalogue, workload: &Workload, image: &Image) -> Result<Instance> {
    catalogue.create(workload.common.name.clone(), workload.common.isolation, |folder| {
        let (config, _) = workload.config(folder, image)?;
        workload.write_id(folder.id())?;
        Ok::<_, anyhow::Error>(config)
    })
}
