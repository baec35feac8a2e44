//! What a security module of the kernel is told about the process: `process.apparmorProfile`, `process.selinuxLabel`.
//! Both are taken at the next execve, which is the trampoline's and so the program's.

use std::ffi::{CStr, CString};
use std::path::Path;

use oci_spec::runtime::Process;

use crate::error::{Error, Result};
use crate::proc_file;
use crate::step::{At, Failure, Step};

/// What is written, and where: by the host's /proc.
#[derive(Debug)]
pub(crate) struct Label {
    file: &'static CStr,
    text: CString,
}

impl Label {
    /// None if `process` asks for none.
    ///
    /// # Errors
    /// The kernel has no such module.
    pub(crate) fn new(process: &Process) -> Result<Option<Self>> {
        let asked = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let profile = asked(process.apparmor_profile());
        match (profile, asked(process.selinux_label())) {
            (None, None) => Ok(None),
            (Some(profile), _) => {
                let field = "process.apparmorProfile";
                // The file of its own is of Linux 5.8, for kernels that have several modules.
                let own = c"/proc/self/attr/apparmor/exec";
                let file = match Path::new("/proc/self/attr/apparmor").is_dir() {
                    true => own,
                    false => c"/proc/self/attr/exec",
                };
                needs(
                    "/sys/module/apparmor/parameters/enabled",
                    |text| text.starts_with('Y'),
                    field,
                )?;
                Label::written(file, format!("exec {profile}"), field).map(Some)
            }
            (None, Some(label)) => {
                let field = "process.selinuxLabel";
                needs_selinux(field)?;
                Label::written(c"/proc/self/attr/exec", label, field).map(Some)
            }
        }
    }

    fn written(file: &'static CStr, text: String, field: &str) -> Result<Label> {
        let text = CString::new(text).map_err(|_| Error::invalid(field, "contains a NUL byte"))?;
        Ok(Label { file, text })
    }

    /// Child: as long as the host's /proc is in sight.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        proc_file::write(self.file, &self.text).at(Step::Label)
    }
}

/// Refuses `field` where no SELinux is.
pub(crate) fn needs_selinux(field: &str) -> Result<()> {
    needs("/sys/fs/selinux/enforce", |_| true, field)
}

fn needs(file: &str, is_on: impl Fn(&str) -> bool, field: &str) -> Result<()> {
    if std::fs::read_to_string(file).is_ok_and(|text| is_on(&text)) {
        return Ok(());
    }
    let problem = format!("this host has no such security module ({file})");
    Err(Error::unsupported(field, problem))
}
