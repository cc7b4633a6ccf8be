//! The guard on framing, which reads heads and bodies: whatever comes, however it is cut, what is passed on has one
//! reading, and that is the one of a reader who knows nothing but the rules.

use hearth_core::framing::{Framing, LONGEST_HEAD, LONGEST_TRAILER, Then};

/// The first byte says in which pieces the rest comes.
pub(crate) fn target(input: &[u8]) {
    let Some((cut, text)) = input.split_first() else { return };
    let whole = Framing::new().advance(text);
    assert!(whole.passed <= text.len());
    let (passed, then, ends, heads) = in_pieces(text, usize::from(*cut) + 1);
    match (whole.then, then) {
        // Where head and fault come together nothing of the request is passed on; else the body is broken.
        (Then::Refused(a), Then::Refused(b) | Then::Broken(b)) | (Then::Broken(a), Then::Broken(b)) => {
            assert_eq!(a, b);
            assert!(whole.passed <= passed);
        }
        (one, other) => assert_eq!((one, whole.passed), (other, passed)),
    }
    let read = by_the_rules(&text[..passed]);
    if matches!(then, Then::More | Then::Refused(_)) && ends {
        assert_eq!(read, Some(heads), "{:?}", String::from_utf8_lossy(&text[..passed]));
    }
}

/// How much is passed of a text that comes in pieces, what was then, whether the connection may end there, and how many
/// heads there were.
fn in_pieces(text: &[u8], size: usize) -> (usize, Then, bool, u64) {
    let (mut framing, mut passed, mut come, mut held) = (Framing::new(), 0, 0, 0);
    while come < text.len() {
        come = (come + size).min(text.len());
        let step = framing.advance(&text[passed..come]);
        passed += step.passed;
        held = held.max(come - passed);
        if step.then != Then::More {
            let ends = framing.may_end() && !matches!(step.then, Then::Undecided);
            return (passed, step.then, ends, framing.heads());
        }
    }
    assert!(held <= LONGEST_HEAD.max(LONGEST_TRAILER) + size, "{held} bytes are held back");
    (passed, Then::More, framing.may_end(), framing.heads())
}

/// Reads requests by the rules alone; their number, if the last one is whole.
fn by_the_rules(mut text: &[u8]) -> Option<u64> {
    let mut heads = 0;
    loop {
        while let Some(rest) = text.strip_prefix(b"\r\n") {
            text = rest;
        }
        if text.is_empty() {
            return Some(heads);
        }
        let end = find(text, b"\r\n\r\n")?;
        let head = &text[..end + 2];
        text = &text[end + 4..];
        heads += 1;
        assert!(head.len() < LONGEST_HEAD && !head.contains(&0));
        let mut lines = lines(head);
        let first = lines.next().unwrap();
        assert_eq!(first.split(|byte| *byte == b' ').count(), 3);
        assert!(first.ends_with(b" HTTP/1.1") || first.ends_with(b" HTTP/1.0"));
        let (mut length, mut chunked, mut hosts) = (None, false, 0);
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':').expect("a field has a colon");
            let (name, value) = (line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii());
            assert!(!name.is_empty() && !name.iter().any(|byte| byte.is_ascii_whitespace()));
            match name.as_slice() {
                b"host" => hosts += 1,
                b"content-length" => {
                    assert_eq!(length, None);
                    length = Some(std::str::from_utf8(value).unwrap().parse::<usize>().unwrap_or(usize::MAX));
                }
                b"transfer-encoding" => {
                    assert!(!chunked && value.eq_ignore_ascii_case(b"chunked") && first.ends_with(b"1"));
                    chunked = true;
                }
                _ => (),
            }
        }
        assert!(hosts <= 1 && !(chunked && length.is_some()));
        text = if chunked { after_chunks(text)? } else { text.get(length.unwrap_or(0)..)? };
    }
}

/// What follows a body of chunks.
fn after_chunks(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        let line = find(text, b"\r\n")?;
        let digits = text[..line].split(|byte| *byte == b';').next().unwrap();
        assert!(!digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit));
        let size = usize::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap_or(usize::MAX);
        text = &text[line + 2..];
        if size == 0 {
            return match text.strip_prefix(b"\r\n") {
                Some(rest) => Some(rest),
                None => find(text, b"\r\n\r\n").map(|end| &text[end + 4..]),
            };
        }
        let after = text.get(size..)?;
        text = after.strip_prefix(b"\r\n").or_else(|| {
            assert!(after.len() < 2, "a chunk is longer than its size");
            None
        })?;
    }
}

/// Lines of a head, each of which ends with CR LF and has neither elsewhere.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split_inclusive(|byte| *byte == b'\n').map(|line| {
        let line = line.strip_suffix(b"\r\n").expect("a line ends with CR LF");
        assert!(!line.contains(&b'\r'));
        line
    })
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|found| found == what)
}
