//! Header blocks of SPDY/3.1: names and values, compressed by zlib with a dictionary and one history for each direction.
//!
//! Draft 3.1, section 2.6.10. Invariant: whatever arrives, no more than [`MAX_BLOCK`] bytes are made of it.

use bytes::{Buf as _, Bytes};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::frame::SpdyError;

/// The longest block, unpacked. Clients write some hundred bytes.
pub(super) const MAX_BLOCK: usize = 16 << 10;

/// Words of the dictionary that have their length before them; `_` is a space.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges \
    age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from \
    host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location \
    max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer \
    transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200_OK version \
    HTTP/1.1 url public set-cookie keep-alive origin";

/// What follows them.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Au\
    thoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidd\
    en404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr Ma\
    y Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,imag\
    e/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicpri\
    vatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary that both sides begin with.
fn dictionary() -> Vec<u8> {
    let mut dictionary = Vec::new();
    for word in WORDS.split(' ') {
        let length = u32::try_from(word.len()).unwrap_or_default();
        dictionary.extend(length.to_be_bytes());
        dictionary.extend(word.replace('_', " ").as_bytes());
    }
    dictionary.extend(TAIL.as_bytes());
    dictionary
}

/// Reads blocks in the order in which they arrive.
#[derive(Debug)]
pub(super) struct Unpacker(Decompress);

impl Unpacker {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Names, in lower case, and values.
    pub(super) fn read(&mut self, packed: &[u8]) -> Result<Vec<(String, String)>, SpdyError> {
        let mut block = Vec::with_capacity(MAX_BLOCK);
        let mut rest = packed;
        while !rest.is_empty() {
            let before = self.0.total_in();
            let result = self.0.decompress_vec(rest, &mut block, FlushDecompress::Sync);
            let taken = usize::try_from(self.0.total_in() - before).unwrap_or(rest.len());
            rest = rest.get(taken..).unwrap_or_default();
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(|_| SpdyError::Header)?;
                }
                Ok(Status::Ok) if taken > 0 => {}
                _ => return Err(SpdyError::Header),
            }
        }
        if block.len() == MAX_BLOCK {
            return Err(SpdyError::TooLong);
        }
        pairs(block.into())
    }
}

fn pairs(mut block: Bytes) -> Result<Vec<(String, String)>, SpdyError> {
    let count = block.try_get_u32().map_err(|_| SpdyError::Header)?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        let name = text(&mut block)?.to_ascii_lowercase();
        pairs.push((name, text(&mut block)?));
    }
    if block.is_empty() { Ok(pairs) } else { Err(SpdyError::Header) }
}

fn text(block: &mut Bytes) -> Result<String, SpdyError> {
    let length = block.try_get_u32().ok().and_then(|length| usize::try_from(length).ok());
    let length = length.filter(|length| *length <= block.len()).ok_or(SpdyError::Header)?;
    String::from_utf8(block.split_to(length).into()).map_err(|_| SpdyError::Header)
}

/// Writes blocks in the order in which they are sent.
#[derive(Debug)]
pub(super) struct Packer(Compress);

impl Packer {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        // A fresh stream takes any dictionary.
        let _ = compress.set_dictionary(&dictionary());
        Self(compress)
    }

    pub(super) fn write(&mut self, pairs: &[(&str, &str)]) -> Vec<u8> {
        let length = |length: usize| u32::try_from(length).unwrap_or_default().to_be_bytes();
        let mut block = length(pairs.len()).to_vec();
        for word in pairs.iter().flat_map(|(name, value)| [name, value]) {
            block.extend(length(word.len()));
            block.extend(word.as_bytes());
        }
        // Deflate adds less than this to what it cannot make shorter.
        let mut packed = Vec::with_capacity(block.len() + 256);
        let _ = self.0.compress_vec(&block, &mut packed, FlushCompress::Sync);
        packed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_that_of_the_draft() {
        let dictionary = dictionary();
        let sum = dictionary.iter().fold((1_u32, 0_u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65521;
            (a, (b + a) % 65521)
        });
        assert_eq!((dictionary.len(), sum.1 << 16 | sum.0), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_survive_the_wire_in_their_order() {
        let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
        for kind in ["error", "stdin", "stdout", "resize"] {
            let packed = packer.write(&[("Streamtype", kind), ("", "")]);
            let expected = vec![("streamtype".to_owned(), kind.to_owned()), (String::new(), String::new())];
            assert_eq!(unpacker.read(&packed).unwrap(), expected);
        }
    }

    #[test]
    fn a_block_that_unpacks_to_more_than_the_limit_is_refused() {
        let long = "x".repeat(MAX_BLOCK);
        let packed = Packer::new().write(&[("streamtype", &long)]);
        assert!(packed.len() < 1000);
        assert!(Unpacker::new().read(&packed).is_err());
    }

    #[test]
    fn lying_lengths_are_refused() {
        for block in [&b"\0\0\0\x01"[..], b"\0\0\0\x01\xff\xff\xff\xff", b"\xff\xff\xff\xff\0\0\0\0", b"\0\0\0\0x"] {
            assert!(pairs(Bytes::copy_from_slice(block)).is_err(), "{block:?}");
        }
    }
}
