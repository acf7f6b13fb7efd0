//! Messages of DNS, as far as they are looked at. Reading and writing is `hickory-proto`'s.

use std::io;

use hickory_proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};

/// What came from the container.
pub(super) enum Request {
    /// A question.
    Query(Box<Question>),
    /// Something that can be answered with an error only.
    Refused(Vec<u8>),
    /// Something that is not answered, lest two servers answer each other for ever.
    Ignored,
}

/// One question, and what else its answer depends on.
#[derive(Clone)]
pub(super) struct Question {
    pub id: u16,
    pub query: Query,
    recursion_desired: bool,
    /// Bytes of the largest answer that fits into a datagram.
    pub most: u16,
}

impl Question {
    /// Reads a message of the container. What servers refuse by its header is what Docker's
    /// refuses (miekg/dns, `acceptfunc.go`).
    pub(super) fn read(bytes: &[u8]) -> Request {
        let Ok(header) = Header::read(&mut BinDecoder::new(bytes)) else {
            return Request::Ignored;
        };
        if header.metadata.message_type == MessageType::Response {
            return Request::Ignored;
        }
        let refuse = |code| Request::Refused(error(header.metadata.id, code));
        if header.metadata.op_code != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        let counts = header.counts;
        // The numbers are asked before anything is read by them.
        if counts.queries != 1
            || counts.answers > 1
            || counts.authorities > 1
            || counts.additionals > 2
        {
            return refuse(ResponseCode::FormErr);
        }
        let Ok(mut message) = Message::from_bytes(bytes) else {
            return refuse(ResponseCode::FormErr);
        };
        let most = message.max_payload();
        let Some(query) = message.queries.pop() else { return refuse(ResponseCode::FormErr) };
        let recursion_desired = message.metadata.recursion_desired;
        Request::Query(Box::new(Self { id: message.metadata.id, query, recursion_desired, most }))
    }

    /// An answer of our own, cut off at `most` bytes.
    pub(super) fn answer(&self, code: ResponseCode, records: Vec<Record>, most: u16) -> Vec<u8> {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.add_query(self.query.clone());
        message.add_answers(records);
        write(&message, most).unwrap_or_else(|| error(self.id, ResponseCode::ServFail))
    }

    pub(super) fn failure(&self, code: ResponseCode) -> Vec<u8> {
        self.answer(code, Vec::new(), u16::MAX)
    }

    /// The code of a server's answer, if it answers this question. Not whether its number is right.
    pub(super) fn code_of(&self, answer: &[u8]) -> Option<ResponseCode> {
        let decoder = &mut BinDecoder::new(answer);
        let header = Header::read(decoder).ok()?;
        if header.metadata.message_type != MessageType::Response || header.counts.queries != 1 {
            return None;
        }
        let query = Query::read(decoder).ok()?;
        let is_this = query.name.eq_ignore_root(&self.query.name)
            && query.query_type == self.query.query_type
            && query.query_class == self.query.query_class;
        is_this.then_some(header.metadata.response_code)
    }
}

/// The number of a message.
pub(super) fn id(message: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*message.first_chunk()?))
}

/// A number that nobody can guess.
pub(super) fn random() -> io::Result<u16> {
    let number = getrandom::u32().map_err(|error| io::Error::other(error.to_string()))?;
    Ok((number >> 16) as u16)
}

/// Gives a message, which has a header, another number.
pub(super) fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.first_chunk_mut() {
        *place = id.to_be_bytes();
    }
}

/// Whether another server may do better: as Docker sees it, REFUSED may be so for a while only.
pub(super) fn is_failure(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::ServFail | ResponseCode::Refused)
}

fn error(id: u16, code: ResponseCode) -> Vec<u8> {
    write(&Message::error_msg(id, OpCode::Query, code), u16::MAX).unwrap_or_default()
}

fn write(message: &Message, most: u16) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(most);
    message.emit(&mut encoder).ok()?;
    Some(bytes)
}
