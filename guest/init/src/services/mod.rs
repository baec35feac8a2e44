//! What init does itself, each time in a child of its own.

mod files;
mod processes;
mod usage;

use isolab_protocol::Service;

/// Does it and says what to exit with. What went wrong is on standard error.
pub fn run(service: &Service) -> i32 {
    let result = match service {
        Service::Processes => processes::list(std::io::stdout().lock()),
        Service::Usage => usage::tell(std::io::stdout().lock()),
        Service::Files(request) => files::perform(request),
    };
    match result {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("{why}");
            1
        }
    }
}
