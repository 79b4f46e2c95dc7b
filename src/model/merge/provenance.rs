//! The `_merge` bytes: which event decided which field of a row.
//!
//! `version, then per event in order: length, order, bit set of the fields it decided`. An event that decided nothing is
//! not in it: taking it out changes no later merge. So a row has at most as many as it has fields.

use prost::Message;

use crate::model::{Order, ReadError};

const VERSION: u8 = 1;
const FIELDS_MAX: usize = 64;
const BITS_BYTES: usize = 8;

/// Which event has decided which field so far.
pub(super) struct Deciders<'a> {
    orders: Vec<&'a Order>,
    of_field: [Option<usize>; FIELDS_MAX],
}

impl<'a> Deciders<'a> {
    pub(super) fn new(orders: Vec<&'a Order>) -> Self {
        Self { orders, of_field: [None; FIELDS_MAX] }
    }

    /// Event `at` decides `field` from now on.
    pub(super) fn decide(&mut self, at: usize, field: u32) {
        self.of_field[field as usize] = Some(at);
    }

    /// Event `at` may be the one that decided `field`, said again. An event whose id was not kept stands for any event
    /// of its time: if it says the same, nothing has changed.
    pub(super) fn is_again(&self, at: usize, field: u32) -> bool {
        self.of_field[field as usize].is_some_and(|before| {
            let (before, again) = (self.orders[before], self.orders[at]);
            (before.event_time_us, before.is_update) == (again.event_time_us, again.is_update)
                && (before.event_id.is_empty() || before.event_id == again.event_id)
        })
    }

    /// `None` where one event decided all and `is_plain` says that its order can be told from the row.
    pub(super) fn encode(self, is_plain: impl FnOnce(&Order) -> bool) -> Option<Vec<u8>> {
        let mut decided: Vec<(usize, u64)> = Vec::new();
        for (field, at) in self.of_field.iter().enumerate().filter_map(|(field, at)| Some((field, (*at)?))) {
            match decided.iter_mut().find(|(known, _)| self.orders[*known] == self.orders[at]) {
                Some((_, fields)) => *fields |= 1 << field,
                None => decided.push((at, 1 << field)),
            }
        }
        decided.sort_unstable();
        match decided[..] {
            [] => None,
            [(at, fields)] => of_one(self.orders[at], fields, is_plain),
            _ => Some(encode(decided.iter().map(|(at, fields)| (self.orders[*at], *fields)))),
        }
    }
}

/// The bytes of a row that one event decided. Its id is left out: it only tells events of one time apart, and as a digest
/// it would be all of the column's weight.
pub(super) fn of_one(order: &Order, fields: u64, is_plain: impl FnOnce(&Order) -> bool) -> Option<Vec<u8>> {
    if fields == 0 || is_plain(order) {
        return None;
    }
    let order = Order { event_id: String::new(), ..*order };
    Some(encode([(&order, fields)]))
}

fn encode<'a>(decided: impl IntoIterator<Item = (&'a Order, u64)>) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for (order, fields) in decided {
        order.encode_length_delimited(&mut bytes).expect("a Vec grows as needed");
        bytes.extend_from_slice(&fields.to_le_bytes());
    }
    bytes
}

/// The events, in order, each with the fields it decided. `known` are the fields that this version knows.
pub(super) fn decode(bytes: &[u8], known: u64) -> Result<Vec<(Order, u64)>, ReadError> {
    let (version, mut rest) = bytes.split_first().ok_or(ReadError::Provenance("it is empty"))?;
    if *version > VERSION {
        return Err(ReadError::Newer { found: *version, known: VERSION });
    }
    if *version < VERSION {
        return Err(ReadError::Provenance("its version is zero"));
    }
    let mut decided: Vec<(Order, u64)> = Vec::new();
    while !rest.is_empty() {
        let order = Order::decode_length_delimited(&mut rest)
            .map_err(|_| ReadError::Provenance("an order is cut or garbled"))?;
        let (fields, after) =
            rest.split_first_chunk::<BITS_BYTES>().ok_or(ReadError::Provenance("a set of fields is cut"))?;
        let fields = u64::from_le_bytes(*fields);
        if fields & !known != 0 {
            return Err(ReadError::Provenance("it names fields that this tracelake does not know"));
        }
        if decided.last().is_some_and(|(before, _)| *before > order) {
            return Err(ReadError::Provenance("its events are not in order"));
        }
        decided.push((order, fields));
        rest = after;
    }
    match decided.is_empty() {
        true => Err(ReadError::Provenance("it names no event")),
        false => Ok(decided),
    }
}
