//! The headers of a record that was fetched.
//!
//! Whoever writes to a topic chooses their names, and the client library panics at one that is not UTF-8. So this
//! module asks the C library.

use std::ffi::CStr;
use std::ptr;

use rdkafka::bindings;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;

use crate::record::Header;

/// A record in the client's fetch buffer.
#[derive(Clone, Copy)]
pub(crate) struct Fetched<'a>(&'a BorrowedMessage<'a>);

impl<'a> Fetched<'a> {
    pub(super) fn of(message: &'a BorrowedMessage<'_>) -> Self {
        Self(message)
    }

    /// Copies of its headers, in their order.
    #[expect(unsafe_code, reason = "the client library panics at names that are not UTF-8")]
    pub(crate) fn headers(self) -> Vec<Header> {
        let mut list = ptr::null_mut();
        // SAFETY: the message lives as long as this borrow. The list belongs to it and is not destroyed here.
        let found = unsafe { bindings::rd_kafka_message_headers(self.0.ptr(), &raw mut list) };
        if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || list.is_null() {
            return Vec::new();
        }
        // SAFETY: the list is not null, and nobody changes it.
        let count = unsafe { bindings::rd_kafka_header_cnt(list) };
        (0..count).filter_map(|at| header(list, at)).collect()
    }
}

/// The header at a place of a list that lives as long as the call.
#[expect(unsafe_code, reason = "as above")]
fn header(list: *const bindings::rd_kafka_headers_t, at: usize) -> Option<Header> {
    let (mut name, mut value, mut bytes) = (ptr::null(), ptr::null(), 0);
    // SAFETY: the caller has the list; the results lie in it and are copied before it goes.
    let found = unsafe { bindings::rd_kafka_header_get_all(list, at, &raw mut name, &raw mut value, &raw mut bytes) };
    if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
        return None;
    }
    // SAFETY: a name ends with a zero.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    let value = if value.is_null() {
        Vec::new()
    } else {
        // SAFETY: a value that is not null has so many bytes.
        unsafe { std::slice::from_raw_parts(value.cast::<u8>(), bytes) }.to_vec()
    };
    Some((name, value))
}
