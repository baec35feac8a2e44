//! Files of the guest, to and from the host, as an archive.

use std::io;
use std::path::Path;

use isolab_protocol::FileRequest;
use isolab_transfer::Tree;

use crate::Failure;

/// Does what is asked for, in the workload's root, with the streams of this process.
pub fn perform(request: &FileRequest) -> Result<(), Failure> {
    let result = Tree::open(Path::new("/"))
        .and_then(|tree| request.perform(&tree, io::stdin().lock(), io::stdout().lock()));
    result.map_err(|error| {
        let cause = std::error::Error::source(&error);
        cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
    })
}
