//! A body of chunks (RFC 9112 §7.1), as strictly as it is written there.

use super::head::{self, is_text};
use super::{LONGEST_TRAILER, Violation};

/// The most digits of a chunk's size: what fits into 64 bits.
const MOST_DIGITS: u8 = 16;

/// The longest extension of a chunk, in bytes. Nobody uses them.
const LONGEST_EXTENSION: u16 = 256;

/// The reader of one body.
#[derive(Debug)]
pub(super) struct Chunked(State);

#[derive(Debug)]
enum State {
    /// In a size, of which so many digits came.
    Size {
        digits: u8,
        value: u64,
    },
    /// In what may follow a size, and is nobody's business here.
    Extension {
        length: u16,
        value: u64,
    },
    /// After the CR of a size's line.
    SizeEnd(u64),
    /// In a chunk of which so much is to come.
    Data(u64),
    /// Before the CR, and before the LF, that end a chunk.
    DataCr,
    DataLf,
    /// In the fields after the last chunk, of which so many bytes were looked at.
    Trailer(usize),
}

/// How far it came.
pub(super) enum Read {
    /// So many bytes are the body's, and more of it is to come.
    More(usize),
    /// So many bytes are, and with them it ends.
    Done(usize),
}

impl Default for Chunked {
    fn default() -> Self {
        Self(State::Size { digits: 0, value: 0 })
    }
}

impl Chunked {
    /// Reads on. Fields after the last chunk are passed on whole or not at all.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<Read, Violation> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match &mut self.0 {
                State::Data(left) => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len() - at);
                    *left -= length as u64;
                    at += length;
                    if *left == 0 {
                        self.0 = State::DataCr;
                    }
                }
                State::Trailer(seen) => {
                    let rest = input.get(at..).unwrap_or_default();
                    let Some(length) = head::end(rest, seen, LONGEST_TRAILER)? else { return Ok(Read::More(at)) };
                    head::trailer(rest.get(..length).unwrap_or_default())?;
                    return Ok(Read::Done(at + length));
                }
                state => {
                    *state = state.after(byte)?;
                    at += 1;
                }
            }
        }
        Ok(Read::More(at))
    }
}

impl State {
    /// The state after a byte of the framing.
    fn after(&self, byte: u8) -> Result<Self, Violation> {
        match (self, byte) {
            (&Self::Size { digits, value }, _) if byte.is_ascii_hexdigit() && digits < MOST_DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                Ok(Self::Size { digits: digits + 1, value: value << 4 | u64::from(digit) })
            }
            (&Self::Size { digits: 1.., value }, b';') => Ok(Self::Extension { length: 0, value }),
            (&Self::Size { digits: 1.., value }, b'\r') | (&Self::Extension { value, .. }, b'\r') => {
                Ok(Self::SizeEnd(value))
            }
            (&Self::Extension { length, value }, _) if is_text(byte) && length < LONGEST_EXTENSION => {
                Ok(Self::Extension { length: length + 1, value })
            }
            (Self::SizeEnd(0), b'\n') => Ok(Self::Trailer(0)),
            (&Self::SizeEnd(value), b'\n') => Ok(Self::Data(value)),
            (Self::DataCr, b'\r') => Ok(Self::DataLf),
            (Self::DataLf, b'\n') => Ok(Self::Size { digits: 0, value: 0 }),
            (Self::SizeEnd(_) | Self::Extension { .. }, _) | (Self::Size { .. }, b'\n') => Err(Violation::LineEnd),
            _ => Err(Violation::Chunk),
        }
    }
}
