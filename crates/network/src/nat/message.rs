//! Messages to nf_tables, as bytes: attributes, which may hold others, and a batch that the kernel
//! takes as a whole or not at all.

/// `NFNL_SUBSYS_NFTABLES`, the upper half of every message's type.
const SUBSYSTEM: u16 = 10;

/// `NFNL_MSG_BATCH_BEGIN`, and the end after it.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

/// The types of messages that answer one, and that end a list.
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;

pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const NLM_F_APPEND: u16 = 0x800;

/// The bit of an attribute's type that says that there are others in it.
const NESTED: u16 = 1 << 15;

/// `NFPROTO_INET`: IPv4 and IPv6.
const INET: u8 = 1;

/// `enum nf_tables_msg_types`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NewTable = 0,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    DeleteRule = 8,
}

impl Kind {
    /// As it stands in a message.
    pub(super) fn number(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

/// Attributes, one after the other.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Attributes {
        // No value here is near the 64 KiB that the length can say: a rule is some hundred bytes.
        let length = (value.len() + 4) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Numbers of nf_tables are in the order of the network.
    pub(super) fn number(self, kind: u16, value: u32) -> Attributes {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn text(self, kind: u16, value: &str) -> Attributes {
        self.bytes(kind, &[value.as_bytes(), b"\0"].concat())
    }

    pub(super) fn nested(self, kind: u16, inner: Attributes) -> Attributes {
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// Messages that take effect together.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// The number of the first message, which only opens the batch.
    first: u32,
    /// The number of the last message that says something.
    last: u32,
    /// Where that begins.
    last_start: usize,
}

impl Batch {
    /// `first` numbers the messages: each has the next number.
    pub(super) fn begin(first: u32) -> Batch {
        let mut batch = Batch { bytes: Vec::new(), first, last: first, last_start: 0 };
        batch.append(BATCH_BEGIN, NLM_F_REQUEST, 0, SUBSYSTEM, &Attributes::default());
        batch
    }

    pub(super) fn add(&mut self, kind: Kind, flags: u16, attributes: &Attributes) {
        self.last = self.last.wrapping_add(1);
        self.last_start = self.bytes.len();
        self.append(kind.number(), NLM_F_REQUEST | flags, INET, 0, attributes);
    }

    /// The bytes, and the numbers of the first and of the last message. The last is answered in any
    /// case, which before Linux 6.10 the end of a batch would not be; others when they are refused.
    pub(super) fn end(mut self) -> (Vec<u8>, u32, u32) {
        let flags = self.last_start + 6;
        self.bytes[flags] |= NLM_F_ACK as u8;
        let (first, last) = (self.first, self.last);
        self.last = last.wrapping_add(1);
        self.append(BATCH_END, NLM_F_REQUEST, 0, SUBSYSTEM, &Attributes::default());
        (self.bytes, first, last)
    }

    fn append(&mut self, kind: u16, flags: u16, family: u8, about: u16, attributes: &Attributes) {
        append(&mut self.bytes, (kind, flags, self.last), (family, about), attributes);
    }
}

/// The question for everything of a kind, of all families.
pub(super) fn list(kind: Kind, sequence: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = (kind.number(), NLM_F_REQUEST | NLM_F_DUMP, sequence);
    append(&mut bytes, header, (0, 0), &Attributes::default());
    bytes
}

/// A message: type, flags and number; then family and subsystem; then what is said.
pub(super) fn append(
    bytes: &mut Vec<u8>,
    (kind, flags, sequence): (u16, u16, u32),
    (family, about): (u8, u16),
    attributes: &Attributes,
) {
    let length = (16 + 4 + attributes.0.len()) as u32;
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&[family, 0]);
    bytes.extend_from_slice(&about.to_be_bytes());
    bytes.extend_from_slice(&attributes.0);
}
