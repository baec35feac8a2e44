//! What the network's name service says of the web tier.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, Question, TYPE};

use super::PATIENCE;
use crate::site::{Member, SiteError};

/// A name that was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Resolved {
    /// The name.
    pub name: String,
    /// Who was asked.
    pub server: SocketAddr,
    /// What it said.
    pub addresses: Vec<Ipv4Addr>,
    /// Bytes of the question.
    pub sent: usize,
    /// Bytes of the answer.
    pub received: usize,
}

/// Asks the name service of a tier's network for it.
///
/// # Errors
/// It is on no network with one, or there is no answer.
pub fn resolve(member: &Member) -> Result<Resolved> {
    let networks = &member.instance.state.networks;
    let gateway = networks.iter().find_map(|it| it.gateways.iter().find(|it| it.is_ipv4()));
    let no_network = || SiteError::NoAddress { instance: member.instance.name().to_owned() };
    let server: IpAddr = *gateway.ok_or_else(no_network)?;
    let (name, server) = (member.tier.name(), SocketAddr::new(server, 53));
    // One at a time, to a server of the same host, from a socket that is connected to it.
    let mut query = Packet::new_query(1);
    let kind = TYPE::A.into();
    query.questions.push(Question::new(Name::new(name)?, kind, CLASS::IN.into(), false));
    let query = query.build_bytes_vec()?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot make a socket")?;
    let cannot = || format!("no answer from {server}");
    socket.connect(server).with_context(cannot)?;
    socket.set_read_timeout(Some(PATIENCE)).with_context(cannot)?;
    socket.send(&query).with_context(cannot)?;
    let mut answer = [0; 1500];
    let received = socket.recv(&mut answer).with_context(cannot)?;
    let packet =
        Packet::parse(&answer[..received]).with_context(|| format!("{server} answers no DNS"))?;
    let address = |data: &RData| match data {
        RData::A(address) => Some(Ipv4Addr::from(address.address)),
        _ => None,
    };
    let addresses: Vec<_> = packet.answers.iter().filter_map(|it| address(&it.rdata)).collect();
    if addresses.is_empty() {
        bail!("{server} knows no `{name}`");
    }
    Ok(Resolved { name: name.to_owned(), server, addresses, sent: query.len(), received })
}
