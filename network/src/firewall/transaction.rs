//! One atomic change of nf_tables: all of it comes into force, or nothing.

use std::io;

use netlink_bindings::nftables::{Chained, Nfgenmsg};
use netlink_socket2::NetlinkSocket;

use super::rule::Rule;

/// The table that is ours, and nobody else's.
pub(super) const TABLE: &str = "isolab";
/// `NFNL_SUBSYS_NFTABLES`, in the header of a batch.
const SUBSYSTEM: u16 = 10;
/// `NFT_SET_MAP`.
const IS_MAP: u32 = 8;
/// Elements of a message, which has to be shorter than 64 KiB.
const BATCH: usize = 256;

/// Where in a packet's way a chain is asked (nf_tables(8), "address families"), and when among those that
/// are asked there.
pub(super) struct Hook {
    pub(super) kind: &'static str,
    pub(super) number: i32,
    pub(super) priority: i32,
}

/// What a set or map has for keys and values: the number that `nft` knows a type by, and bytes.
#[derive(Clone, Copy)]
pub(super) struct Type {
    pub(super) number: u32,
    pub(super) length: u32,
}

pub(super) struct Transaction {
    messages: Chained<'static>,
    sets: u32,
}

impl Transaction {
    pub(super) fn begin(socket: &mut NetlinkSocket) -> Self {
        // Each of up to that many messages has a number of its own.
        let mut messages = Chained::new(socket.reserve_seq(1 << 16));
        messages.request().op_batch_begin_do(&batch_header());
        Self { messages, sets: 0 }
    }

    pub(super) fn commit(mut self, socket: &mut NetlinkSocket) -> io::Result<()> {
        self.messages.request().op_batch_end_do(&batch_header());
        let sent = self.messages.finalize();
        let done = socket.request_chained(&sent)?.recv_all();
        done.map_err(|error| {
            // It says which message, and which of its attributes.
            tracing::debug!(%error, "nftables");
            error.into()
        })
    }

    /// The table is there, and has nothing in it.
    pub(super) fn new_table(&mut self) {
        self.add_table();
        self.delete_table();
        self.add_table();
    }

    /// The table, which is there, is so no more.
    pub(super) fn delete_table(&mut self) {
        let request = self.messages.request();
        request.op_deltable_do(&header()).encode().push_name_bytes(TABLE.as_bytes());
    }

    fn add_table(&mut self) {
        let request = self.messages.request().set_create();
        request.op_newtable_do(&header()).encode().push_name_bytes(TABLE.as_bytes());
    }

    pub(super) fn set(&mut self, name: &str, key: Type, elements: &[Vec<u8>]) {
        self.new_set(name, key, None);
        let elements: Vec<_> = elements.iter().map(|key| (key.clone(), None)).collect();
        self.fill(name, &elements);
    }

    pub(super) fn map(
        &mut self,
        name: &str,
        key: Type,
        value: Type,
        elements: Vec<(Vec<u8>, Vec<u8>)>,
    ) {
        self.new_set(name, key, Some(value));
        self.add_to_map(name, elements);
    }

    /// Elements for a map that is there.
    pub(super) fn add_to_map(&mut self, name: &str, elements: Vec<(Vec<u8>, Vec<u8>)>) {
        let elements: Vec<_> =
            elements.into_iter().map(|(key, value)| (key, Some(value))).collect();
        self.fill(name, &elements);
    }

    fn new_set(&mut self, name: &str, key: Type, value: Option<Type>) {
        self.sets += 1;
        let mut request = self.messages.request().set_create().op_newset_do(&header());
        let mut set = request.encode().push_table_bytes(TABLE.as_bytes());
        set = set.push_name_bytes(name.as_bytes()).push_id(self.sets);
        set = set.push_key_type(key.number).push_key_len(key.length);
        if let Some(value) = value {
            set = set.push_flags(IS_MAP).push_data_type(value.number).push_data_len(value.length);
        } else {
            set = set.push_flags(0);
        }
        drop(set);
    }

    fn fill(&mut self, set: &str, elements: &[(Vec<u8>, Option<Vec<u8>>)]) {
        for batch in elements.chunks(BATCH) {
            let mut request = self.messages.request().set_create().op_newsetelem_do(&header());
            let message = request.encode().push_table_bytes(TABLE.as_bytes());
            let mut list = message.push_set_bytes(set.as_bytes()).nested_elements();
            for (key, value) in batch {
                let mut element = list.nested_elem().nested_key().push_value(key).end_nested();
                if let Some(value) = value {
                    element = element.nested_data().push_value(value).end_nested();
                }
                list = element.end_nested();
            }
            drop(list);
        }
    }

    /// A chain; with a hook, packets go through it.
    pub(super) fn chain(&mut self, name: &str, hook: Option<Hook>) {
        let mut request = self.messages.request().set_create().op_newchain_do(&header());
        let chain = request.encode().push_table_bytes(TABLE.as_bytes());
        let chain = chain.push_name_bytes(name.as_bytes());
        if let Some(Hook { kind, number, priority }) = hook {
            chain
                .nested_hook()
                .push_num(number.cast_unsigned())
                .push_priority(priority)
                .end_nested()
                .push_policy(libc::NF_ACCEPT.cast_unsigned())
                .push_type_bytes(kind.as_bytes());
        }
    }

    /// A rule behind those that the chain has.
    pub(super) fn rule(&mut self, chain: &str) -> Rule<'_> {
        let request = self.messages.request().set_create().set_append();
        let rule = request.op_newrule_do(&header()).into_encoder();
        let rule = rule.push_table_bytes(TABLE.as_bytes()).push_chain_bytes(chain.as_bytes());
        Rule(rule.nested_expressions())
    }
}

/// `inet`: IPv4 and IPv6.
pub(super) fn header() -> Nfgenmsg {
    Nfgenmsg { nfgen_family: libc::NFPROTO_INET as u8, ..Default::default() }
}

fn batch_header() -> Nfgenmsg {
    let mut header = Nfgenmsg::new();
    header.set_res_id(SUBSYSTEM);
    header
}
