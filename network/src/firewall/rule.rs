//! What a rule looks at, and what it does: expressions of nf_tables (linux/netfilter/nf_tables.h), in the
//! order in which they are evaluated. The first that does not hold ends the rule.

use netlink_bindings::nftables::{
    BitwiseOps, CmpOps, CtKeys, MetaKeys, PayloadBase, PushExprListAttrs, PushRuleAttrs,
    VerdictCode,
};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{RequestBuf, push_header};

/// The first register of 4 bytes, `NFT_REG32_00`. An interface's name takes four, an IPv6 address too.
const REGISTER: u32 = 8;
/// The verdict's register, `NFT_REG_VERDICT`.
const VERDICT: u32 = 0;
/// `NFTA_FIB_F_DADDR`, `NFTA_FIB_F_IIF`: the destination's route, as seen from the packet's interface.
const FIB_DESTINATION: u32 = 2;
const FIB_INTERFACE: u32 = 8;
/// `NFT_FIB_RESULT_ADDRTYPE`. The crate's enumeration, which is the kernel's own specification's, lacks
/// the first value and is one short.
const FIB_ADDRESS_TYPE: u32 = 3;
/// The crate's, which follow the kernel's own specification (as of 7.3), have other numbers than
/// linux/netfilter/nf_tables.h.
const NFTA_LOOKUP_SREG: u16 = 2;
const NFTA_LOOKUP_DREG: u16 = 3;
/// `NFT_NAT_DNAT`.
const DNAT: u32 = 1;
/// `IPS_DST_NAT` (linux/netfilter/nf_conntrack_common.h).
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// `NF_CT_STATE_BIT` of `IP_CT_ESTABLISHED` and `IP_CT_RELATED`.
const ESTABLISHED_OR_RELATED: u32 = (1 << 1) | (1 << 2);

/// Which end of a packet.
#[derive(Clone, Copy)]
pub(crate) enum PacketSide {
    Source,
    Destination,
}

/// The protocol of addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Self::V4 => libc::NFPROTO_IPV4 as u8,
            Self::V6 => libc::NFPROTO_IPV6 as u8,
        }
    }

    /// Where an address is in the header (RFC 791, 3.1; RFC 8200, 3), and its length.
    fn field(self, end: PacketSide) -> (u32, u32) {
        match (self, end) {
            (Self::V4, PacketSide::Source) => (12, 4),
            (Self::V4, PacketSide::Destination) => (16, 4),
            (Self::V6, PacketSide::Source) => (8, 16),
            (Self::V6, PacketSide::Destination) => (24, 16),
        }
    }

    /// How many registers an address takes.
    fn registers(self) -> u32 {
        match self {
            Self::V4 => 1,
            Self::V6 => 4,
        }
    }
}

/// A rule that is being written; it is whole when dropped.
pub(crate) struct Rule<'a>(pub(super) PushExprListAttrs<PushRuleAttrs<RequestBuf<'a>>>);

impl Rule<'_> {
    /// The packet came in by an interface in the set.
    pub(crate) fn arrives_by_any(self, set: &str) -> Self {
        self.meta(MetaKeys::Iifname, REGISTER).lookup(set, None)
    }

    /// It goes out by one in the set.
    pub(crate) fn leaves_by_any(self, set: &str) -> Self {
        self.meta(MetaKeys::Oifname, REGISTER).lookup(set, None)
    }

    /// It came in by this interface.
    pub(crate) fn arrives_by(self, name: &str) -> Self {
        self.meta(MetaKeys::Iifname, REGISTER).compare(CmpOps::Eq, &interface_key(name))
    }

    /// It goes out by this interface.
    pub(crate) fn leaves_by(self, name: &str) -> Self {
        self.meta(MetaKeys::Oifname, REGISTER).compare(CmpOps::Eq, &interface_key(name))
    }

    /// It goes out by another interface.
    pub(crate) fn leaves_by_other(self, name: &str) -> Self {
        self.meta(MetaKeys::Oifname, REGISTER).compare(CmpOps::Neq, &interface_key(name))
    }

    /// It is of this family.
    pub(crate) fn of_family(self, family: Family) -> Self {
        self.meta(MetaKeys::Nfproto, REGISTER).compare(CmpOps::Eq, &[family.number()])
    }

    /// Its address is in the subnet.
    pub(crate) fn in_subnet(
        self,
        end: PacketSide,
        family: Family,
        network: &[u8],
        mask: &[u8],
    ) -> Self {
        let (offset, length) = family.field(end);
        let rule = self
            .of_family(family)
            .payload(PayloadBase::NetworkHeader, offset, length, REGISTER)
            .mask(mask);
        rule.compare(CmpOps::Eq, network)
    }

    /// Its destination is in the set.
    pub(crate) fn for_address_in(self, family: Family, set: &str) -> Self {
        let (offset, length) = family.field(PacketSide::Destination);
        self.of_family(family)
            .payload(PayloadBase::NetworkHeader, offset, length, REGISTER)
            .lookup(set, None)
    }

    /// Its destination is an address of the host.
    pub(crate) fn for_host(self) -> Self {
        let local = u32::from(libc::RTN_LOCAL).to_ne_bytes();
        self.destination_type(FIB_DESTINATION).compare(CmpOps::Eq, &local)
    }

    /// Its destination is no address of the interface that it came in by.
    pub(crate) fn not_for_its_interface(self) -> Self {
        let local = u32::from(libc::RTN_LOCAL).to_ne_bytes();
        self.destination_type(FIB_DESTINATION | FIB_INTERFACE).compare(CmpOps::Neq, &local)
    }

    /// It belongs to a connection that was let through.
    pub(crate) fn of_known_connection(self) -> Self {
        self.connection(CtKeys::State, ESTABLISHED_OR_RELATED)
    }

    /// Its destination was another one before a rule translated it.
    pub(crate) fn of_published_port(self) -> Self {
        self.connection(CtKeys::Status, DESTINATION_TRANSLATED)
    }

    /// Translates the destination to what the map has for address, protocol and port, or for the latter.
    pub(crate) fn translate(self, family: Family, with_address: bool, map: &str) -> Self {
        let mut rule = self.of_family(family);
        let mut register = REGISTER;
        if with_address {
            let (offset, length) = family.field(PacketSide::Destination);
            rule = rule.payload(PayloadBase::NetworkHeader, offset, length, register);
            register += family.registers();
        }
        // The destination port of TCP and UDP.
        rule = rule.meta(MetaKeys::L4Proto, register).payload(
            PayloadBase::TransportHeader,
            2,
            2,
            register + 1,
        );
        let nat = rule
            .lookup(map, Some(REGISTER))
            .0
            .nested_elem()
            .nested_data_nat()
            .push_type(DNAT)
            .push_family(family.number().into())
            .push_reg_addr_min(REGISTER)
            .push_reg_proto_min(REGISTER + family.registers());
        Self(nat.end_nested().end_nested())
    }

    /// The packet leaves with the address of the interface that it leaves by.
    pub(crate) fn masquerade(self) {
        self.0.nested_elem().push_name(c"masq").end_nested();
    }

    pub(crate) fn accept(self) {
        self.verdict(VerdictCode::Accept, None);
    }

    pub(crate) fn drop_packet(self) {
        self.verdict(VerdictCode::Drop, None);
    }

    pub(crate) fn return_to_caller(self) {
        self.verdict(VerdictCode::Return, None);
    }

    pub(crate) fn jump(self, chain: &str) {
        self.verdict(VerdictCode::Jump, Some(chain));
    }

    fn meta(self, key: MetaKeys, register: u32) -> Self {
        let meta = self.0.nested_elem().nested_data_meta();
        Self(meta.push_dreg(register).push_key(key as u32).end_nested().end_nested())
    }

    fn payload(self, base: PayloadBase, offset: u32, length: u32, register: u32) -> Self {
        let payload = self.0.nested_elem().nested_data_payload();
        let payload = payload.push_dreg(register).push_base(base as u32);
        Self(payload.push_offset(offset).push_len(length).end_nested().end_nested())
    }

    fn mask(self, mask: &[u8]) -> Self {
        let bitwise = self.0.nested_elem().nested_data_bitwise();
        let bitwise = bitwise
            .push_sreg(REGISTER)
            .push_dreg(REGISTER)
            .push_len(mask.len() as u32)
            .push_op(BitwiseOps::MaskXor as u32)
            .nested_mask()
            .push_value(mask)
            .end_nested()
            .nested_xor()
            .push_value(&[0; 16][..mask.len()])
            .end_nested();
        Self(bitwise.end_nested().end_nested())
    }

    fn compare(self, operation: CmpOps, value: &[u8]) -> Self {
        let cmp = self.0.nested_elem().nested_data_cmp();
        let cmp = cmp.push_sreg(REGISTER).push_op(operation as u32);
        Self(cmp.nested_data().push_value(value).end_nested().end_nested().end_nested())
    }

    fn lookup(self, set: &str, to: Option<u32>) -> Self {
        let mut lookup = self.0.nested_elem().nested_data_lookup().push_set_bytes(set.as_bytes());
        let attributes = lookup.as_vec_mut();
        let registers = [(NFTA_LOOKUP_SREG, Some(REGISTER)), (NFTA_LOOKUP_DREG, to)];
        for (attribute, register) in registers {
            if let Some(register) = register {
                push_header(attributes, attribute, 4);
                attributes.extend(register.to_be_bytes());
            }
        }
        Self(lookup.end_nested().end_nested())
    }

    fn destination_type(self, flags: u32) -> Self {
        let fib = self.0.nested_elem().nested_data_fib();
        let fib = fib.push_dreg(REGISTER).push_result(FIB_ADDRESS_TYPE);
        Self(fib.push_flags(flags).end_nested().end_nested())
    }

    fn connection(self, key: CtKeys, bits: u32) -> Self {
        let ct = self.0.nested_elem().nested_data_ct();
        let rule = Self(ct.push_dreg(REGISTER).push_key(key as u32).end_nested().end_nested());
        rule.mask(&bits.to_ne_bytes()).compare(CmpOps::Neq, &[0; 4])
    }

    fn verdict(self, code: VerdictCode, chain: Option<&str>) {
        let data = self.0.nested_elem().nested_data_immediate().push_dreg(VERDICT).nested_data();
        let mut verdict = data.nested_verdict().push_code(code as u32);
        if let Some(chain) = chain {
            verdict = verdict.push_chain_bytes(chain.as_bytes());
        }
        verdict.end_nested().end_nested().end_nested().end_nested().end_nested();
    }
}

/// An interface's name as the kernel compares it.
pub(crate) fn interface_key(name: &str) -> [u8; libc::IFNAMSIZ] {
    let mut key = [0; libc::IFNAMSIZ];
    for (to, from) in key.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    key
}
