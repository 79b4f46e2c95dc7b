//! The `_merge` bytes: which event decided which field of a row.
//!
//! `version, then per event in order: length, order, bit set of the fields it decided`; from version 2 on, also the bit
//! set of those among them that it cleared. Version 1 is written where nothing is cleared. An event that decided
//! nothing is not in it: taking it out changes no later merge. So a row has at most as many as it has fields.

use prost::Message;

use crate::model::{Order, ReadError};

/// Without and with cleared fields.
const PLAIN: u8 = 1;
const WITH_CLEARED: u8 = 2;
const FIELDS_MAX: usize = 64;
const BITS_BYTES: usize = 8;

/// One event and the fields that it decided.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Decided {
    pub(super) order: Order,
    pub(super) fields: u64,
    /// Those of `fields` of which it says that they are nothing.
    pub(super) cleared: u64,
}

/// Which event has decided which field so far.
pub(super) struct Deciders<'a> {
    orders: Vec<&'a Order>,
    of_field: [Option<usize>; FIELDS_MAX],
    cleared: u64,
}

impl<'a> Deciders<'a> {
    pub(super) fn new(orders: Vec<&'a Order>) -> Self {
        Self { orders, of_field: [None; FIELDS_MAX], cleared: 0 }
    }

    /// Event `at` decides `field` from now on.
    pub(super) fn decide(&mut self, at: usize, field: u32) {
        self.of_field[field as usize] = Some(at);
        self.cleared &= !(1 << field);
    }

    /// Event `at` decides that `field` is nothing.
    pub(super) fn clear(&mut self, at: usize, field: u32) {
        let is_again = self.cleared & 1 << field != 0 && self.is_again(at, field);
        if !is_again {
            self.decide(at, field);
            self.cleared |= 1 << field;
        }
    }

    /// Nobody decides `field`.
    pub(super) fn forget(&mut self, field: u32) {
        self.of_field[field as usize] = None;
    }

    /// The fields that are nothing because it was said so.
    pub(super) fn cleared(&self) -> u64 {
        self.cleared
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
        let one = |(at, fields): &(usize, u64)| Decided {
            order: self.orders[*at].clone(),
            fields: *fields,
            cleared: fields & self.cleared,
        };
        match &decided[..] {
            [] => None,
            [alone] => of_one(one(alone), is_plain),
            several => Some(encode(&several.iter().map(one).collect::<Vec<_>>())),
        }
    }
}

/// The bytes of a row that one event decided. Its id is left out: it only tells events of one time apart, and as a digest
/// it would be all of the column's weight.
pub(super) fn of_one(mut decided: Decided, is_plain: impl FnOnce(&Order) -> bool) -> Option<Vec<u8>> {
    if decided.fields == 0 || is_plain(&decided.order) {
        return None;
    }
    decided.order.event_id.clear();
    Some(encode(&[decided]))
}

fn encode(decided: &[Decided]) -> Vec<u8> {
    let version = if decided.iter().any(|one| one.cleared != 0) { WITH_CLEARED } else { PLAIN };
    let mut bytes = vec![version];
    for Decided { order, fields, cleared } in decided {
        order.encode_length_delimited(&mut bytes).expect("a Vec grows as needed");
        bytes.extend_from_slice(&fields.to_le_bytes());
        if version == WITH_CLEARED {
            bytes.extend_from_slice(&cleared.to_le_bytes());
        }
    }
    bytes
}

/// The events, in order, each with the fields it decided. `known` are the fields that this version knows.
pub(super) fn decode(bytes: &[u8], known: u64) -> Result<Vec<Decided>, ReadError> {
    let (version, mut rest) = bytes.split_first().ok_or(ReadError::Provenance("it is empty"))?;
    if *version > WITH_CLEARED {
        return Err(ReadError::Newer { found: *version, known: WITH_CLEARED });
    }
    if *version < PLAIN {
        return Err(ReadError::Provenance("its version is zero"));
    }
    let mut decided: Vec<Decided> = Vec::new();
    while !rest.is_empty() {
        let order = Order::decode_length_delimited(&mut rest)
            .map_err(|_| ReadError::Provenance("an order is cut or garbled"))?;
        let fields = bit_set(&mut rest)?;
        let cleared = if *version == WITH_CLEARED { bit_set(&mut rest)? } else { 0 };
        if fields & !known != 0 {
            return Err(ReadError::Provenance("it names fields that this tracelake does not know"));
        }
        if cleared & !fields != 0 {
            return Err(ReadError::Provenance("an event clears a field that it did not decide"));
        }
        if decided.last().is_some_and(|before| before.order > order) {
            return Err(ReadError::Provenance("its events are not in order"));
        }
        decided.push(Decided { order, fields, cleared });
    }
    match decided.is_empty() {
        true => Err(ReadError::Provenance("it names no event")),
        false => Ok(decided),
    }
}

fn bit_set(rest: &mut &[u8]) -> Result<u64, ReadError> {
    let (bytes, after) =
        rest.split_first_chunk::<BITS_BYTES>().ok_or(ReadError::Provenance("a set of fields is cut"))?;
    *rest = after;
    Ok(u64::from_le_bytes(*bytes))
}
