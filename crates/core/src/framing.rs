//! Where one HTTP/1 request ends and the next begins, where that can be read in one way only.
//!
//! Two programs that read the same bytes as different requests are how one visitor's request becomes another's. So what
//! a client sends goes through here before any parser sees it: a request is passed on when RFC 9112 has one reading of
//! it, and everything that some parser is known to read otherwise is refused: two lengths, a length beside chunks, line
//! ends without CR, folded lines, blanks before a colon, signs and blanks in a length, NULs. Nothing is repaired.
//!
//! A head is passed on whole or not at all; a body is passed on as it comes. Of a request whose fault can be seen in the
//! bytes that have its head, nothing is passed on. It keeps no bytes: whoever calls it holds back what it did not pass.

mod chunked;
mod head;

use chunked::Chunked;
use head::Body;

/// The longest head, in bytes, its last empty line included.
pub const LONGEST_HEAD: usize = 64 * 1024;

/// The most that the fields after a body may have, in bytes.
pub const LONGEST_TRAILER: usize = 8 * 1024;

/// The most fields of a head, as hyper has it.
pub const MOST_FIELDS: usize = 100;

/// The reader of one connection's requests.
#[derive(Debug, Default)]
pub struct Framing {
    state: State,
    /// How many heads were passed on.
    heads: u64,
}

#[derive(Debug)]
enum State {
    /// Before a head, of which so many bytes were looked at already.
    Head(usize),
    /// In a body of which so much is to come.
    Length(u64),
    /// In a body of chunks.
    Chunked(Chunked),
    /// After a head that asks for another protocol: what follows is not known before the answer is.
    Undecided,
    /// Another protocol, or nothing that matters any more.
    Over,
}

/// How far the reader came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advance {
    /// So many bytes from the beginning may be passed on.
    pub passed: usize,
    /// What is with those that follow.
    pub then: Then,
}

/// What is with the bytes that were not passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// There are none, or more have to come before anything can be said of them; they are to be given again.
    More,
    /// Whether they are requests depends on the answer to the last: [`Framing::decide`] goes on.
    Undecided,
    /// They begin a request that is refused; nothing of it, or what came after, may be passed on.
    Refused(Violation),
    /// The body of the last request, whose head was passed on, cannot be read to its end.
    Broken(Violation),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub enum Violation {
    /// A line ends with LF alone, or has a CR in it.
    LineEnd,
    /// The request line is not a method, a target and a version.
    RequestLine,
    /// A field is not a name, a colon and a value.
    Field,
    /// The head, or the fields after the body, are longer than is allowed.
    TooLong,
    /// The head has more fields than is allowed.
    TooMany,
    /// There are several fields of a name that may be there once.
    SeveralHosts,
    /// The length is given more than once, or is not a number.
    Length,
    /// The transfer coding is another than `chunked`, alone and once, in HTTP/1.1.
    Coding,
    /// There are a length and a transfer coding.
    LengthAndCoding,
    /// A chunk's size, or what is around a chunk, is not as it has to be.
    Chunk,
    /// A field after the body is one that must stand in the head.
    Trailer,
}

impl Violation {
    /// What is wrong, for who sent the request.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::LineEnd => "A line of the request does not end with CR LF, or has a CR elsewhere.",
            Self::RequestLine => {
                "The first line of the request is not a method, a target and HTTP/1.0 or HTTP/1.1, with one space between."
            }
            Self::Field => {
                "A line of the head is not a field: a name, a colon without a blank before it, a value without controls."
            }
            Self::TooLong => "The head of the request is longer than 64 KiB.",
            Self::TooMany => "The head of the request has more than 100 fields.",
            Self::SeveralHosts => "The request has more than one Host field.",
            Self::Length => {
                "The Content-Length of the request is given more than once, or is not a number of digits alone."
            }
            Self::Coding => "The Transfer-Encoding of the request is not 'chunked' alone, in HTTP/1.1.",
            Self::LengthAndCoding => "The request has both a Content-Length and a Transfer-Encoding.",
            Self::Chunk => {
                "A chunk of the request's body is not as its size says, or its size is not hexadecimal digits alone."
            }
            Self::Trailer => "A field after the request's body is one that belongs into its head.",
        }
    }
}

impl Framing {
    /// A connection on which nothing came yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many heads were passed on.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether the connection may end here: it is between requests, or speaks another protocol.
    pub fn may_end(&self) -> bool {
        matches!(self.state, State::Head(0) | State::Undecided | State::Over)
    }

    /// Reads on. `input` begins with what was not passed before.
    pub fn advance(&mut self, input: &[u8]) -> Advance {
        let mut passed = 0;
        // Where the request begins whose head is in this input.
        let mut begin = None;
        loop {
            let rest = input.get(passed..).unwrap_or_default();
            let step = self.step(rest);
            match step {
                Ok(Step::Head(length)) => {
                    let has_body = matches!(self.state, State::Length(_) | State::Chunked(_));
                    begin = has_body.then_some(passed);
                    passed += length;
                    self.heads += 1;
                }
                Ok(Step::Body(length)) => passed += length,
                Ok(Step::Done(length)) => {
                    begin = None;
                    passed += length;
                }
                Ok(Step::More) => return Advance { passed, then: Then::More },
                Ok(Step::Undecided) => return Advance { passed, then: Then::Undecided },
                Err(violation) => {
                    let in_body = !matches!(self.state, State::Head(_));
                    self.state = State::Over;
                    return match begin {
                        Some(begin) => {
                            self.heads -= 1;
                            Advance { passed: begin, then: Then::Refused(violation) }
                        }
                        None if in_body => Advance { passed, then: Then::Broken(violation) },
                        None => Advance { passed, then: Then::Refused(violation) },
                    };
                }
            }
        }
    }

    /// Says what an undecided connection is: more requests, or another protocol.
    pub fn decide(&mut self, is_switched: bool) {
        if matches!(self.state, State::Undecided) {
            self.state = if is_switched { State::Over } else { State::default() };
        }
    }

    fn step(&mut self, rest: &[u8]) -> Result<Step, Violation> {
        match &mut self.state {
            State::Over => Ok(if rest.is_empty() { Step::More } else { Step::Body(rest.len()) }),
            State::Undecided => Ok(Step::Undecided),
            _ if rest.is_empty() => Ok(Step::More),
            // Some programs end a body with an empty line too many (RFC 9112 §2.2).
            State::Head(seen) if rest.starts_with(b"\r\n") => {
                *seen = 0;
                Ok(Step::Done(2))
            }
            State::Head(seen) => {
                let Some(length) = head::end(rest, seen, LONGEST_HEAD)? else { return Ok(Step::More) };
                let head = rest.get(..length).unwrap_or_default();
                self.state = match head::body(head)? {
                    Body::None => State::default(),
                    Body::Length(length) => State::Length(length),
                    Body::Chunked => State::Chunked(Chunked::default()),
                    Body::Undecided => State::Undecided,
                };
                Ok(Step::Head(length))
            }
            State::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                *left -= length as u64;
                if *left > 0 {
                    return Ok(Step::Body(length));
                }
                self.state = State::default();
                Ok(Step::Done(length))
            }
            State::Chunked(chunked) => match chunked.read(rest)? {
                chunked::Read::More(0) => Ok(Step::More),
                chunked::Read::More(length) => Ok(Step::Body(length)),
                chunked::Read::Done(length) => {
                    self.state = State::default();
                    Ok(Step::Done(length))
                }
            },
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::Head(0)
    }
}

/// What the next bytes are.
enum Step {
    /// A head of this length.
    Head(usize),
    /// So much of a body.
    Body(usize),
    /// So much of a body, with which it ends.
    Done(usize),
    More,
    Undecided,
}

#[cfg(test)]
mod tests;
