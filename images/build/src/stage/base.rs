//! FROM, and the ONBUILD triggers that a base brings.

use isolab_images::ingest::BlobId;
use serde_json::json;

use super::{Layer, Outcome, Stage, StageBuilder};
use crate::config::Config;
use crate::dockerfile::{self, Instruction, StageSource};

const OUR_PLATFORMS: [&str; 3] = ["linux/amd64", "linux/amd64/v1", "linux/x86_64"];

impl StageBuilder<'_, '_> {
    pub(super) fn from(&mut self, source: &StageSource) -> Outcome {
        self.stage.args = self.build.globals.clone();
        for option in &source.from.options {
            let value = option.value.as_ref().map(|value| self.expand(value)).transpose()?;
            match (option.name.as_str(), value) {
                ("platform", Some(platform)) => self.warn_of_platform(&platform),
                (other, _) => return Err(format!("unknown option --{other}").into()),
            }
        }
        let image = self.expand(&source.image)?;
        self.stage.args.clear();
        if image == "scratch" {
            return Ok(());
        }
        if image.is_empty() {
            return Err("the image's name is empty".into());
        }
        self.stage = match self.build.stage_named(&image, self.number) {
            Some(number) if image.parse::<usize>().is_err() => self.build.stage(number)?,
            _ => self.image(&image)?,
        };
        self.pull_triggers()
    }

    /// An image of another stage is not asked for: it has our platform.
    fn image(&mut self, name: &str) -> Outcome<Stage> {
        let image = self.build.base(name)?;
        let config_id = BlobId::parse(image.manifest().config().digest().as_ref())?;
        let config = self.build.store.blobs().read_document(&config_id)?;
        let config = Config::parse(&config_id, &config)?;
        if let Some(platform) = config.platform().filter(|it| !is_ours(it)) {
            let warning = format!("{name} is for {platform}, and commands run as linux/amd64");
            self.build.warn(&warning);
        }
        let diff_ids = image.config().rootfs().diff_ids().iter();
        let layers = image.manifest().layers().iter().zip(diff_ids);
        let layers = layers
            .map(|(layer, id)| Layer { descriptor: layer.clone(), diff_id: id.clone() })
            .collect();
        Ok(Stage { config, layers, args: Default::default() })
    }

    fn warn_of_platform(&mut self, platform: &str) {
        if !is_ours(platform) {
            let warning = format!("--platform={platform}: images are built for linux/amd64 here");
            self.build.warn(&warning);
        }
    }

    /// `ONBUILD INSTRUCTION`: kept for the builds on this image.
    pub(super) fn keep_trigger(&mut self, instruction: &Instruction) {
        let mut trigger = instruction.arguments.clone();
        trigger += &instruction.documents_as_written();
        let mut triggers = self.stage.config.list("OnBuild");
        triggers.push(trigger);
        self.stage.config.set("OnBuild", json!(triggers));
    }

    /// Executes the base's triggers, which are not passed on.
    fn pull_triggers(&mut self) -> Outcome {
        let triggers = self.stage.config.list("OnBuild");
        self.stage.config.unset("OnBuild");
        for trigger in triggers {
            self.build.tell(&format!("[stage {}] ONBUILD {trigger}", self.number));
            let instruction = dockerfile::parse_trigger(&trigger);
            let instruction = instruction.map_err(|e| format!("ONBUILD {trigger}: {e}"))?;
            self.execute(&instruction).map_err(|fault| match fault {
                super::Fault::Why(why) => format!("ONBUILD {}: {why}", instruction.text).into(),
                other => other,
            })?;
        }
        Ok(())
    }
}

fn is_ours(platform: &str) -> bool {
    OUR_PLATFORMS.contains(&platform)
}
