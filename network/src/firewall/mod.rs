//! What the networks in use need of the host's firewall: one nftables table, `inet isolab`.
//!
//! The table is a function of the leases. Whenever a network comes into use or goes out of it, or a port
//! is given up, it is replaced as a whole by one transaction: there is no moment without it, and nothing in
//! it that a kill left behind. A port that is published is added, which is quicker. Connections that exist
//! go on. It is written over netlink:
//! `nft` need not be installed.
//!
//! A chain of ours can only refuse what others accept. Where another table drops what is forwarded (Docker
//! does, and firewalld), its owner has to accept it; [`dropping_chains`] tells where.

mod rule;
mod table;
mod transaction;

use std::io;

use netlink_bindings::nftables::{Nfgenmsg, Request};
use netlink_socket2::{NetlinkSocket, ReplyError};

use crate::error::NetworkError;
use crate::lease::Lease;
use crate::record::NetworkRecord;
use transaction::{TABLE, Transaction, header};

/// A network in use, and who is on it.
pub(crate) type InUse = (NetworkRecord, Vec<Lease>);

/// The host's firewall.
pub(crate) struct Firewall {
    socket: NetlinkSocket,
}

impl Firewall {
    pub(crate) fn open() -> Self {
        Self { socket: NetlinkSocket::new() }
    }

    /// Whether our table is there: who reloads a firewall may flush everything.
    pub(crate) fn is_there(&mut self) -> Result<bool, NetworkError> {
        let mut request = Request::new().op_gettable_do(&header());
        request.encode().push_name_bytes(TABLE.as_bytes());
        let found = self.socket.request(&request).map_err(ReplyError::from);
        match found.and_then(|mut reply| reply.recv_one().map(drop)).map_err(io::Error::from) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(failed("look at")(error)),
        }
    }

    /// Adds the ports of one lease to the table, which is there. Says whether that was all: an element
    /// that is there already, or a table that is not, is for [`Firewall::replace`].
    pub(crate) fn publish(&mut self, lease: &Lease) -> Result<bool, NetworkError> {
        let mut transaction = Transaction::begin(&mut self.socket);
        table::add_ports(&mut transaction, lease);
        match transaction.commit(&mut self.socket) {
            Ok(()) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::EEXIST | libc::EBUSY) => Ok(false),
                _ => Err(failed("write")(error)),
            },
        }
    }

    /// Replaces our table by what these networks need. Without any, there is none.
    pub(crate) fn replace(&mut self, networks: &[InUse]) -> Result<(), NetworkError> {
        let mut transaction = Transaction::begin(&mut self.socket);
        transaction.new_table();
        match networks {
            [] => transaction.delete_table(),
            _ => table::write(&mut transaction, networks),
        }
        transaction.commit(&mut self.socket).map_err(failed("write"))
    }
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| match source.raw_os_error() {
        // A kernel without nf_tables, or without the inet family or an expression that we use.
        Some(libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => {
            NetworkError::NoNftables { source }
        }
        _ => NetworkError::kernel(action, "the nftables table `inet isolab`")(source),
    }
}

/// Where a chain of another table is asked.
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    /// What the host forwards: an instance's way to the world and back.
    Forward,
    /// What is for the host itself: an instance's questions to its network's name service.
    Input,
}

/// The chains of others that drop what comes there unless a rule of theirs accepts it, as `ip filter
/// FORWARD`. Those of iptables-legacy are not seen.
///
/// # Errors
/// They cannot be listed, which takes CAP_NET_ADMIN.
pub fn dropping_chains(hook: Hook) -> Result<Vec<String>, NetworkError> {
    let number = match hook {
        Hook::Forward => libc::NF_INET_FORWARD,
        Hook::Input => libc::NF_INET_LOCAL_IN,
    };
    let mut socket = NetlinkSocket::new();
    let mut list = || -> Result<Vec<String>, ReplyError> {
        let request = Request::new().op_getchain_dump(&Nfgenmsg::new());
        let mut reply = socket.request(&request)?;
        let mut found = Vec::new();
        while let Some(chain) = reply.recv() {
            let (header, chain) = chain?;
            let family = match i32::from(header.nfgen_family) {
                libc::NFPROTO_IPV4 => "ip",
                libc::NFPROTO_IPV6 => "ip6",
                libc::NFPROTO_INET => "inet",
                _ => continue,
            };
            let is_there = chain
                .get_hook()
                .and_then(|hook| hook.get_num())
                .is_ok_and(|it| it == number.cast_unsigned());
            let drops = chain.get_policy().is_ok_and(|it| it == libc::NF_DROP.cast_unsigned());
            if let (true, Ok(table), Ok(name)) =
                (is_there && drops, chain.get_table(), chain.get_name())
            {
                found.push(format!(
                    "{family} {} {}",
                    table.to_string_lossy(),
                    name.to_string_lossy()
                ));
            }
        }
        Ok(found)
    };
    list().map_err(|error| NetworkError::kernel("list", "the host's nftables chains")(error.into()))
}
