//! What those use who bring images into the store: the registry client and the Dockerfile builder.
//!
//! First the lock that [`Store::writing`](crate::Store::writing) gives, then blobs
//! ([`Store::receive`](crate::Store::receive), [`Store::take_in`](crate::Store::take_in)), each before
//! the document that names it, and at last the index
//! ([`Store::add_to_index`](crate::Store::add_to_index)). Whoever dies on the way leaves nothing that
//! the next one trusts.

pub use crate::archive::Parts;
pub use crate::blob::{BlobId, Blobs, MAX_DOCUMENT, hex};
pub use crate::document::{Document, bad_document, choose_platform, descriptor};
pub use crate::error::io_error;
pub use crate::merged::{Found, is_opaque, is_real_folder, is_whiteout};
pub use crate::store::build_cache;
pub use crate::store::lock::FileLock;
pub use crate::store::names::{full_name, parse as parse_name, with_name};
pub use crate::store::{Arrival, Incoming, WorkFolder, publish};
pub use crate::unpack::{ensure_all, is_archive, unpack_archive};
