//! What a query is answered, from the network's own names (RFC 1035, 4.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::{A, AAAA, PTR, RData};
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

use crate::zone::Zone;

/// An endpoint that ends and comes back has another address.
const TTL: u32 = 0;
/// RFC 1035, 4.1.1.
const HEADER: usize = 12;
/// RFC 1035, 4.2.1: who says nothing else takes that much over UDP.
pub const PLAIN_UDP: usize = 512;
/// What passes everywhere without fragments (RFC 9715).
pub const LARGEST_UDP: usize = 1232;

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Disposition {
    /// This is the answer.
    Answer(Vec<u8>),
    /// It is no name of the network: the host's resolvers may know.
    Ask,
    /// No query, or not even a header: an answer to it could be answered for ever.
    Ignore,
}

/// Judges a message of a client. An answer is at most `limit` bytes long, or as long as the query allows
/// up to [`LARGEST_UDP`], where `limit` is [`PLAIN_UDP`].
pub fn answer(message: &[u8], zone: &Zone, limit: usize) -> Disposition {
    let Some(header) = message.first_chunk::<HEADER>() else { return Disposition::Ignore };
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if header[2] & 0x80 != 0 {
        return Disposition::Ignore;
    }
    // Before anything is read, or room made for it: one question, and at most OPT and TSIG behind it.
    let sane = count(4) == 1 && count(6) == 0 && count(8) == 0 && count(10) <= 2;
    let query = if sane { Packet::parse(message).ok() } else { None };
    let Some(query) = query else { return refuse(header, RCODE::FormatError) };
    if query.opcode() != OPCODE::StandardQuery {
        return refuse(header, RCODE::NotImplemented);
    }
    let [question] = &query.questions[..] else { return refuse(header, RCODE::FormatError) };
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER | PacketFlag::RECURSION_AVAILABLE);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    let Some(answers) = find(question, zone) else { return Disposition::Ask };
    reply.answers = answers;
    reply.questions = query.questions.clone();
    let limit = match query.opt() {
        Some(opt) if limit == PLAIN_UDP => {
            usize::from(opt.udp_packet_size).clamp(PLAIN_UDP, LARGEST_UDP)
        }
        _ => limit,
    };
    let Ok(mut bytes) = reply.build_bytes_vec_compressed() else {
        return refuse(header, RCODE::ServerFailure);
    };
    if bytes.len() > limit {
        reply.answers.clear();
        reply.set_flags(PacketFlag::TRUNCATION);
        match reply.build_bytes_vec_compressed() {
            Ok(short) => bytes = short,
            Err(_) => return refuse(header, RCODE::ServerFailure),
        }
    }
    Disposition::Answer(bytes)
}

/// The answers to a question about a name or address of the network; None where it is about neither.
fn find<'a>(question: &Question<'a>, zone: &Zone) -> Option<Vec<ResourceRecord<'a>>> {
    if !matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY) {
        return None;
    }
    let name = text(&question.qname)?;
    let asks = |kind| matches!(question.qtype, QTYPE::ANY) || question.qtype == QTYPE::TYPE(kind);
    let record = |data| ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, data);
    if let Some(addresses) = zone.addresses(&name) {
        let mut answers = Vec::new();
        for address in addresses {
            if asks(TYPE::A) {
                answers.push(record(RData::A(A::from(address.v4))));
            }
            if let (true, Some(v6)) = (asks(TYPE::AAAA), address.v6) {
                answers.push(record(RData::AAAA(AAAA::from(v6))));
            }
        }
        return Some(answers);
    }
    let names = zone.names(address_of(&name)?)?;
    if !asks(TYPE::PTR) {
        return Some(Vec::new());
    }
    let pointers =
        names.iter().filter_map(|name| Name::new(name.as_str()).ok().map(Name::into_owned));
    Some(pointers.map(|name| record(RData::PTR(PTR(name)))).collect())
}

/// A name of ours as it is written: in lower case, labels with dots between. None where a label has other
/// bytes than ours do; nothing would be found then, or the wrong thing, for a label may have a dot in it.
fn text(name: &Name) -> Option<String> {
    let mut text = String::new();
    for label in name.as_bytes() {
        if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte)) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    }
    Some(text)
}

/// The address that a name for reverse look-ups stands for (RFC 1035, 3.5; RFC 3596, 2.5).
fn address_of(name: &str) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let mut bytes = [0; 4];
        let mut parts = octets.rsplit('.');
        for byte in &mut bytes {
            *byte = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then_some(Ipv4Addr::from(bytes).into());
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let mut bits: u128 = 0;
    let mut count = 0;
    for digit in digits.rsplit('.') {
        count += 1;
        if digit.len() != 1 || count > 32 {
            return None;
        }
        bits = bits << 4 | u128::from_str_radix(digit, 16).ok()?;
    }
    (count == 32).then_some(Ipv6Addr::from_bits(bits).into())
}

/// That there is no such name.
pub fn no_such_name(message: &[u8]) -> Disposition {
    failure(message, RCODE::NameError)
}

/// That nobody could be asked.
pub fn nobody_knows(message: &[u8]) -> Disposition {
    failure(message, RCODE::ServerFailure)
}

fn failure(message: &[u8], code: RCODE) -> Disposition {
    let Ok(query) = Packet::parse(message) else { return Disposition::Ignore };
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE | PacketFlag::RECURSION_DESIRED);
    *reply.rcode_mut() = code;
    reply.questions = query.questions;
    reply.build_bytes_vec_compressed().map_or(Disposition::Ignore, Disposition::Answer)
}

/// An answer without anything of the query but its number.
fn refuse(header: &[u8; HEADER], code: RCODE) -> Disposition {
    let mut reply = Packet::new_reply(u16::from_be_bytes([header[0], header[1]]));
    *reply.rcode_mut() = code;
    reply.build_bytes_vec().map_or(Disposition::Ignore, Disposition::Answer)
}

/// Whether `reply` is one to `query`: same number, same question. Anything else is not passed on.
pub fn is_reply(query: &[u8], reply: &[u8]) -> bool {
    let (Some(asked), Some(told)) = (query.first_chunk::<HEADER>(), reply.first_chunk::<HEADER>())
    else {
        return false;
    };
    let (Some(question), Some(echoed)) = (question_of(query), question_of(reply)) else {
        return false;
    };
    asked[..2] == told[..2] && told[2] & 0x80 != 0 && question.eq_ignore_ascii_case(echoed)
}

/// The bytes of a message's only question. A question's name is not compressed: nothing is before it.
fn question_of(message: &[u8]) -> Option<&[u8]> {
    let rest = message.get(HEADER..)?;
    let mut at = 0;
    loop {
        match *rest.get(at)? {
            0 => return rest.get(..at + 5),
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolab_network::{Lease, MacAddress};

    fn zone() -> Zone {
        let lease = |owner: &str, last: u8, names: &[&str]| {
            let address = Ipv4Addr::new(10, 1, 0, last);
            Lease {
                owner: owner.to_owned(),
                names: names.iter().map(|name| name.parse().unwrap()).collect(),
                address,
                address6: (last == 2).then(|| "fd00::2".parse().unwrap()),
                mac: MacAddress::of(address),
                ports: Vec::new(),
            }
        };
        let mut leases = vec![lease("web", 2, &["web", "www.lan"]), lease("db", 3, &["db", "all"])];
        leases.extend((4..60).map(|last| lease("many", last, &["all"])));
        Zone::of(leases)
    }

    fn query(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(0x1234);
        let (kind, class) = (QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN));
        packet.questions.push(Question::new(Name::new(name).unwrap(), kind, class, false));
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.build_bytes_vec().unwrap()
    }

    fn answers(name: &str, kind: TYPE) -> Option<Vec<String>> {
        let Disposition::Answer(bytes) = answer(&query(name, kind), &zone(), PLAIN_UDP) else {
            return None;
        };
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.id(), packet.rcode()), (0x1234, RCODE::NoError));
        assert!(packet.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_AVAILABLE));
        assert!(is_reply(&query(name, kind), &bytes));
        let show = |record: &ResourceRecord| match &record.rdata {
            RData::A(a) => Ipv4Addr::from(a.address).to_string(),
            RData::AAAA(a) => Ipv6Addr::from(a.address).to_string(),
            RData::PTR(name) => name.0.to_string(),
            other => panic!("{other:?}"),
        };
        Some(packet.answers.iter().map(show).collect())
    }

    #[test]
    fn names_and_addresses_of_the_network_are_answered_and_others_asked_for() {
        let some = |all: &[&str]| Some(all.iter().map(|&it| it.to_owned()).collect::<Vec<_>>());
        assert_eq!(answers("web", TYPE::A), some(&["10.1.0.2"]));
        assert_eq!(answers("WeB", TYPE::A), some(&["10.1.0.2"]));
        assert_eq!(answers("www.lan", TYPE::AAAA), some(&["fd00::2"]));
        // It is there, and has none of that kind: nobody else is asked.
        assert_eq!(answers("db", TYPE::AAAA), some(&[]));
        assert_eq!(answers("web", TYPE::MX), some(&[]));
        assert_eq!(answers("2.0.1.10.in-addr.arpa", TYPE::PTR), some(&["web", "www.lan"]));
        let six = format!("2.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
        assert_eq!(answers(&six, TYPE::PTR), some(&["web", "www.lan"]));
        for other in ["example.org", "webb", "9.9.9.9.in-addr.arpa", "2.0.1.10.x.in-addr.arpa"] {
            assert_eq!(answers(other, TYPE::A), None, "{other}");
        }
    }

    #[test]
    fn what_is_too_long_for_a_datagram_is_asked_for_again_over_tcp() {
        let query = query("all", TYPE::A);
        let Disposition::Answer(short) = answer(&query, &zone(), PLAIN_UDP) else { panic!() };
        let short = Packet::parse(&short).unwrap();
        assert!(short.has_flags(PacketFlag::TRUNCATION) && short.answers.is_empty());
        let Disposition::Answer(whole) = answer(&query, &zone(), usize::from(u16::MAX)) else {
            panic!()
        };
        assert_eq!(Packet::parse(&whole).unwrap().answers.len(), 57);
    }

    #[test]
    fn nothing_hostile_is_more_than_refused() {
        let zone = zone();
        let good = query("web", TYPE::A);
        assert_eq!(answer(&good[..11], &zone, PLAIN_UDP), Disposition::Ignore);
        let mut response = good.clone();
        response[2] |= 0x80;
        assert_eq!(answer(&response, &zone, PLAIN_UDP), Disposition::Ignore);
        let code = |message: &[u8]| match answer(message, &zone, PLAIN_UDP) {
            Disposition::Answer(bytes) => Packet::parse(&bytes).unwrap().rcode(),
            other => panic!("{other:?}"),
        };
        for (at, value) in [(4, 0xFF), (5, 2), (5, 0), (7, 1), (9, 1), (10, 0xFF)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(code(&bad), RCODE::FormatError, "{at}");
        }
        let mut other = good.clone();
        other[2] |= 2 << 3;
        assert_eq!(code(&other), RCODE::NotImplemented);
        // A name that points to itself, and every message that is cut off.
        let mut pointer = good[..12].to_vec();
        pointer.extend([0xC0, 12, 0, 1, 0, 1]);
        assert_eq!(code(&pointer), RCODE::FormatError);
        for length in 12..good.len() {
            assert_eq!(code(&good[..length]), RCODE::FormatError, "{length}");
        }
        for (at, bit) in (0..good.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            answer(&bad, &zone, PLAIN_UDP);
        }
        assert!(!is_reply(&good, &good) && !is_reply(&good, &[]));
        assert!(!is_reply(&good, &response[..good.len() - 1]) && is_reply(&good, &response));
    }
}
