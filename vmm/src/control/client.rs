//! The other side of the control socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::protocol::{DEFAULT_GRACE, Reply, Request};

/// How long an answer may take beyond what was asked for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Far more than any answer has.
const MAX_REPLY: u64 = 16 << 20;

/// A request that was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens at the socket, or we may not connect to it.
    #[error("cannot reach a machine at {path}")]
    Connect {
        /// The control socket, as it was named.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or no answer came in time.
    #[error("the machine at {path} does not answer")]
    Broken {
        /// The control socket, as it was named.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// What came is no reply; perhaps something else listens there.
    #[error("what listens at {path} does not speak isolab's control protocol")]
    Reply {
        /// The control socket, as it was named.
        path: PathBuf,
        /// Where it went wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The machine answered that it does not do that.
    #[error("the machine at {path} refused: {message}")]
    Refused {
        /// The control socket, as it was named.
        path: PathBuf,
        /// The reason that it gave.
        message: String,
    },
}

/// Makes one request of the machine whose control socket is at `path`.
///
/// # Errors
/// [`ClientError`].
pub fn call<T: DeserializeOwned>(path: &Path, request: Request) -> Result<T, ClientError> {
    let stream = UnixStream::connect(path)
        .map_err(|source| ClientError::Connect { path: path.into(), source })?;
    let reply = exchange(stream, request)
        .map_err(|source| ClientError::Broken { path: path.into(), source })?;
    match serde_json::from_slice(&reply) {
        Ok(Reply::Ok(answer)) => Ok(answer),
        Ok(Reply::Error(message)) => Err(ClientError::Refused { path: path.into(), message }),
        Err(source) => Err(ClientError::Reply { path: path.into(), source }),
    }
}

fn exchange(mut stream: UnixStream, request: Request) -> io::Result<Vec<u8>> {
    let asked_for = match request {
        Request::Stop { grace_ms } => grace_ms.map_or(DEFAULT_GRACE, Duration::from_millis),
        _ => Duration::ZERO,
    };
    stream.set_read_timeout(Some(asked_for.saturating_add(ANSWER_TIMEOUT)))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    // No more requests: the machine closes after its answer.
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut reply = Vec::new();
    stream.take(MAX_REPLY).read_to_end(&mut reply)?;
    if reply.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(reply)
}
