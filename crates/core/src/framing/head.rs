//! The head of a request, and the fields after a body: where they end, and what they say of the body.

use memchr::memchr;

use super::{MOST_FIELDS, Violation};

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// The next request.
    None,
    /// So many bytes, at least one.
    Length(u64),
    /// Chunks.
    Chunked,
    /// The next request, or another protocol if the answer switches to it.
    Undecided,
}

/// Field names that a body's trailing fields must not have: they would say anew what the head has said.
const HEAD_ONLY: [&[u8]; 6] = [b"content-length", b"transfer-encoding", b"host", b"connection", b"upgrade", b"trailer"];

/// Where lines end with an empty one: how long they are with it. `seen` is how much was looked at before, and is kept.
pub(super) fn end(input: &[u8], seen: &mut usize, longest: usize) -> Result<Option<usize>, Violation> {
    while let Some(at) = memchr(b'\n', input.get(*seen..).unwrap_or_default()) {
        let at = *seen + at;
        let before = |distance: usize| at.checked_sub(distance).and_then(|at| input.get(at));
        if before(1) != Some(&b'\r') {
            return Err(Violation::LineEnd);
        }
        *seen = at + 1;
        if *seen > longest {
            return Err(Violation::TooLong);
        }
        if matches!(before(2), None | Some(b'\n')) {
            return Ok(Some(*seen));
        }
    }
    *seen = input.len();
    if *seen >= longest { Err(Violation::TooLong) } else { Ok(None) }
}

/// What a whole head says of the body. The head ends with an empty line, and each of its lines with CR LF.
pub(super) fn body(head: &[u8]) -> Result<Body, Violation> {
    let mut lines = Lines(head);
    let version = request_line(lines.next().unwrap_or_default())?;
    let (mut fields, mut hosts) = (0, 0);
    let (mut length, mut chunked, mut upgrade) = (None, false, false);
    for line in lines {
        let (name, value) = field(line)?;
        fields += 1;
        if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if length.is_some() {
                return Err(Violation::Length);
            }
            length = Some(number(value).ok_or(Violation::Length)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || version != Version::Http11 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Violation::Coding);
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            upgrade = true;
        }
    }
    if fields > MOST_FIELDS {
        return Err(Violation::TooMany);
    }
    if hosts > 1 {
        return Err(Violation::SeveralHosts);
    }
    match (length, chunked) {
        (Some(_), true) => Err(Violation::LengthAndCoding),
        (None, true) => Ok(Body::Chunked),
        (Some(length @ 1..), false) => Ok(Body::Length(length)),
        (None | Some(0), false) => Ok(if upgrade { Body::Undecided } else { Body::None }),
    }
}

/// Checks the fields after a body, which end with an empty line.
pub(super) fn trailer(fields: &[u8]) -> Result<(), Violation> {
    for (count, line) in Lines(fields).enumerate() {
        let (name, _) = field(line)?;
        if HEAD_ONLY.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
            return Err(Violation::Trailer);
        }
        if count >= MOST_FIELDS {
            return Err(Violation::TooMany);
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

fn request_line(line: &[u8]) -> Result<Version, Violation> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    let is_method = method.is_some_and(|method| !method.is_empty() && method.iter().copied().all(is_token));
    let is_target = target.is_some_and(|target| !target.is_empty() && target.iter().copied().all(is_of_target));
    match version {
        _ if !is_method || !is_target || parts.next().is_some() => Err(line_fault(line, Violation::RequestLine)),
        Some(b"HTTP/1.1") => Ok(Version::Http11),
        Some(b"HTTP/1.0") => Ok(Version::Http10),
        _ => Err(line_fault(line, Violation::RequestLine)),
    }
}

/// Name and value of a field, the value without the blanks around it.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    let fault = || line_fault(line, Violation::Field);
    let colon = line.iter().position(|byte| *byte == b':').ok_or_else(fault)?;
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default();
    let is_name = !name.is_empty() && name.iter().copied().all(is_token);
    if is_name && value.iter().copied().all(is_text) { Ok((name, trimmed(value))) } else { Err(fault()) }
}

/// A CR in the middle is told apart, since it ends a line for some parsers.
fn line_fault(line: &[u8], otherwise: Violation) -> Violation {
    if line.contains(&b'\r') { Violation::LineEnd } else { otherwise }
}

fn trimmed(value: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

/// A number of digits alone.
fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_digits)
}

/// A character of a token (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// A character of a target. Bytes beyond ASCII are not allowed there, but programs send them and nobody splits at them.
/// At `#` some do, and others do not.
fn is_of_target(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f && byte != b'#'
}

/// A character of a field's value (RFC 9110 §5.5).
pub(super) fn is_text(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}

/// Lines that end with CR LF, up to the first empty one.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let at = memchr(b'\n', self.0)?;
        let (line, rest) = self.0.split_at(at);
        self.0 = rest.get(1..).unwrap_or_default();
        // What the line ends with was looked at when its end was looked for.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        (!line.is_empty()).then_some(line)
    }
}
