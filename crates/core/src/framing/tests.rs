//! What is passed on, what is refused and why, however the bytes come.

use proptest::prelude::*;

use super::Violation as V;
use super::*;

const HEAD: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n";

/// What comes of a text that is given all at once.
fn read(text: &str) -> Advance {
    Framing::new().advance(text.as_bytes())
}

/// What comes of it, byte after byte: how much was passed, and what was then.
fn read_slowly(bytes: &[u8]) -> Advance {
    let (mut framing, mut held, mut passed) = (Framing::new(), Vec::new(), 0);
    for byte in bytes {
        held.push(*byte);
        let step = framing.advance(&held);
        passed += step.passed;
        held.drain(..step.passed);
        if step.then != Then::More {
            return Advance { passed, then: step.then };
        }
    }
    Advance { passed, then: Then::More }
}

#[test]
fn requests_with_one_reading_are_passed_on() {
    for text in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET /a?b=c HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET /\u{e9} HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost:a\r\nEmpty:\r\nBlank: \t \r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:  5 \r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 2\r\n\r\nhiGET / HTTP/1.1\r\nHost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0a;x=\"y\"\r\n0123456789\r\n00\r\nA: b\r\nC:\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "get-it!#$%&'*+-.^_`|~ / HTTP/1.1\r\n\r\n",
    ] {
        let all = Advance { passed: text.len(), then: Then::More };
        assert_eq!((read(text), read_slowly(text.as_bytes())), (all, all), "{text:?}");
    }
}

fn body(lines: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}")
}

/// Heads whose lines are not as they have to be.
fn lines() -> Vec<(String, Violation)> {
    let field = |line: &str| format!("{HEAD}{line}\r\n\r\n");
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    vec![
        (field("Host: a.example"), V::SeveralHosts),
        (field("hOST: b.example"), V::SeveralHosts),
        (field(" Host: b.example"), V::Field),
        (field("X: a\r\n folded: b"), V::Field),
        (field("X: a\r\n\tfolded"), V::Field),
        (field("No colon"), V::Field),
        (field(": no name"), V::Field),
        (field("A(b): c"), V::Field),
        (field("\u{e9}: c"), V::Field),
        (field("X: a\0b"), V::Field),
        (field("X: a\x0bb"), V::Field),
        (field("X: a\x7fb"), V::Field),
        (field("X: a\rContent-Length: 5"), V::LineEnd),
        (field("X: a\r\rb"), V::LineEnd),
        (field("X: a\nContent-Length: 5"), V::LineEnd),
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), V::LineEnd),
        (format!("{HEAD}\n"), V::LineEnd),
        (line("GET  / HTTP/1.1"), V::RequestLine),
        (line("GET / HTTP/1.1 "), V::RequestLine),
        (line(" GET / HTTP/1.1"), V::RequestLine),
        (line("GET /a b HTTP/1.1"), V::RequestLine),
        (line("GET\t/ HTTP/1.1"), V::RequestLine),
        (line("GET /\0 HTTP/1.1"), V::RequestLine),
        (line("GET /#b HTTP/1.1"), V::RequestLine),
        (line("GET / HTTP/1.1 HTTP/1.1"), V::RequestLine),
        (line("GET / HTTP/0.9"), V::RequestLine),
        (line("GET / HTTP/2.0"), V::RequestLine),
        (line("GET / HTTP/1.1\0"), V::RequestLine),
        (line("GET /"), V::RequestLine),
        (line("GET / HTTP/1.2"), V::RequestLine),
        (line("GET / HTTP/01.1"), V::RequestLine),
        (line("GET / http/1.1"), V::RequestLine),
        (line("GET / HTTP/1.1\rX"), V::LineEnd),
        (line("G(T / HTTP/1.1"), V::RequestLine),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), V::RequestLine),
    ]
}

/// Heads that do not say in one way how long the body is.
fn lengths() -> Vec<(String, Violation)> {
    vec![
        (body("Content-Length: 3\r\nContent-Length: 3", "abc"), V::Length),
        (body("Content-Length: 3\r\nContent-Length: 4", "abcd"), V::Length),
        (body("Content-Length: 3, 3", "abc"), V::Length),
        (body("Content-Length: +3", "abc"), V::Length),
        (body("Content-Length: -3", "abc"), V::Length),
        (body("Content-Length: 0x3", "abc"), V::Length),
        (body("Content-Length: 3 3", "abc"), V::Length),
        (body("Content-Length:", "abc"), V::Length),
        (body("Content-Length: 18446744073709551616", ""), V::Length),
        (body("Content-Length: 3\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), V::LengthAndCoding),
        (body("Transfer-Encoding: chunked\r\nContent-Length: 0", "0\r\n\r\n"), V::LengthAndCoding),
        (body("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), V::Coding),
        (body("Transfer-Encoding: identity, chunked", "0\r\n\r\n"), V::Coding),
        (body("Transfer-Encoding: chunked, identity", "0\r\n\r\n"), V::Coding),
        (body("Transfer-Encoding: gzip", "abc"), V::Coding),
        (body("Transfer-Encoding: \"chunked\"", "0\r\n\r\n"), V::Coding),
        (body("Transfer-Encoding:", "abc"), V::Coding),
        (body("Transfer-Encoding: chunked,", "0\r\n\r\n"), V::Coding),
        (body("Transfer-Encoding: , chunked", "0\r\n\r\n"), V::Coding),
        (body("Transfer-Encoding: chunked;q=1", "0\r\n\r\n"), V::Coding),
        (body("Transfer-Encoding: xchunked", "0\r\n\r\n"), V::Coding),
        (body("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n"), V::Coding),
        (body("Transfer-Encoding: \x0bchunked", "0\r\n\r\n"), V::Field),
        (body("Transfer-Encoding\0: chunked", "0\r\n\r\n"), V::Field),
        (body("Content-Length: 3.0", "abc"), V::Length),
        (body("Content-Length: 1e1", "abc"), V::Length),
        (body("Content-Length: \u{663}", "abc"), V::Length),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), V::Coding),
        (body("Transfer-Encoding : chunked", "0\r\n\r\n"), V::Field),
        (body("Content-Length : 3", "abc"), V::Field),
    ]
}

/// Chunks that are not as they have to be.
fn chunks() -> Vec<(String, Violation)> {
    let chunks = |chunks: &str| body("Transfer-Encoding: chunked", chunks);
    vec![
        (chunks("3 \r\nabc\r\n0\r\n\r\n"), V::Chunk),
        (chunks(" 3\r\nabc\r\n0\r\n\r\n"), V::Chunk),
        (chunks("+3\r\nabc\r\n0\r\n\r\n"), V::Chunk),
        (chunks("0x3\r\nabc\r\n0\r\n\r\n"), V::Chunk),
        (chunks("\r\nabc\r\n0\r\n\r\n"), V::Chunk),
        (chunks(";x\r\nabc\r\n0\r\n\r\n"), V::Chunk),
        (chunks("g\r\nabc\r\n0\r\n\r\n"), V::Chunk),
        (chunks("-3\r\nabc\r\n0\r\n\r\n"), V::Chunk),
        (chunks("3_0\r\nabc\r\n0\r\n\r\n"), V::Chunk),
        (chunks("3\t\r\nabc\r\n0\r\n\r\n"), V::Chunk),
        (chunks("3\0\r\nabc\r\n0\r\n\r\n"), V::Chunk),
        (chunks("10000000000000003\r\nabc\r\n0\r\n\r\n"), V::Chunk),
        (chunks("3\nabc\r\n0\r\n\r\n"), V::LineEnd),
        (chunks("3\r\nabcd\r\n0\r\n\r\n"), V::Chunk),
        (chunks("3\r\nabc0\r\n\r\n"), V::Chunk),
        (chunks("3\r\nabc\n0\r\n\r\n"), V::Chunk),
        (chunks("3\rabc\r\n0\r\n\r\n"), V::LineEnd),
        (chunks("3;a\0\r\nabc\r\n0\r\n\r\n"), V::LineEnd),
        (chunks("3;a\nabc\r\n0\r\n\r\n"), V::LineEnd),
        (chunks("0\r\nContent-Length: 3\r\n\r\n"), V::Trailer),
        (chunks("0\r\nHost: b\r\n\r\n"), V::Trailer),
        (chunks("0\r\n X: b\r\n\r\n"), V::Field),
        (chunks("0\r\nX: b\n\r\n"), V::LineEnd),
    ]
}

#[test]
fn what_can_be_read_in_two_ways_is_refused_before_a_byte_goes_on() {
    for (text, violation) in &[lines(), lengths(), chunks()].concat() {
        let refused = Advance { passed: 0, then: Then::Refused(*violation) };
        assert_eq!(read(text), refused, "{text:?}");
        // Slowly, a fault of the body comes when the head is gone; it is seen all the same.
        let slowly = read_slowly(text.as_bytes());
        let is_seen = [Then::Refused(*violation), Then::Broken(*violation)].contains(&slowly.then);
        assert!(is_seen, "{text:?}: {slowly:?}");
        assert!(slowly.passed == 0 || slowly.then == Then::Broken(*violation), "{text:?}: {slowly:?}");
        // A request before it is passed on whole.
        let first = format!("{HEAD}\r\n");
        let after = Advance { passed: first.len(), then: Then::Refused(*violation) };
        assert_eq!(read(&format!("{first}{text}")), after, "{text:?}");
    }
}

#[test]
fn heads_are_bounded() {
    let long = format!("{HEAD}X: {}\r\n\r\n", "x".repeat(LONGEST_HEAD));
    assert_eq!(read(&long).then, Then::Refused(Violation::TooLong));
    assert_eq!(read(&long[..LONGEST_HEAD]).then, Then::Refused(Violation::TooLong), "it never ends");
    let fields = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert_eq!(read(&fields(MOST_FIELDS)).then, Then::More);
    assert_eq!(read(&fields(MOST_FIELDS + 1)).then, Then::Refused(Violation::TooMany));
    let trailer =
        format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: {}", "x".repeat(LONGEST_TRAILER));
    assert_eq!(read(&trailer).then, Then::Refused(Violation::TooLong));
}

#[test]
fn what_follows_a_request_for_another_protocol_waits_for_the_answer() {
    let ask = format!("{HEAD}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    for is_switched in [true, false] {
        let mut framing = Framing::new();
        let text = format!("{ask}not a head");
        assert_eq!(framing.advance(text.as_bytes()), Advance { passed: ask.len(), then: Then::Undecided });
        assert_eq!(framing.advance(b"not a head"), Advance { passed: 0, then: Then::Undecided });
        framing.decide(is_switched);
        let rest = framing.advance(b"not a head\r\n\r\n");
        let expected = match is_switched {
            true => Advance { passed: 14, then: Then::More },
            false => Advance { passed: 0, then: Then::Refused(Violation::RequestLine) },
        };
        assert_eq!(rest, expected);
    }
}

#[test]
fn a_connection_may_end_between_requests_only() {
    for (text, may_end) in [
        ("", true),
        ("GET / HTTP/1.1\r\n\r\n", true),
        ("GET / HTTP", false),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", false),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", false),
    ] {
        let mut framing = Framing::new();
        framing.advance(text.as_bytes());
        assert_eq!(framing.may_end(), may_end, "{text:?}");
    }
}

proptest! {
    /// However the bytes are cut, the same are passed on.
    #[test]
    fn cuts_make_no_difference(
        parts in proptest::collection::vec(proptest::sample::select(PARTS), 0..12),
        cuts in proptest::collection::vec(0..200_usize, 0..12),
    ) {
        let text: String = parts.concat();
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([bytes.len()]).collect();
        cuts.sort_unstable();
        let (mut framing, mut passed) = (Framing::new(), 0);
        let mut then = Then::More;
        for cut in cuts {
            let step = framing.advance(&bytes[passed..cut.max(passed)]);
            passed += step.passed;
            then = step.then;
            if then != Then::More {
                break;
            }
        }
        let slowly = read_slowly(bytes);
        match (then, slowly.then) {
            // Cut so that head and fault come together, nothing of the request is passed on.
            (Then::Refused(a), Then::Refused(b) | Then::Broken(b)) | (Then::Broken(a), Then::Broken(b)) => {
                prop_assert_eq!(a, b);
                prop_assert!(passed <= slowly.passed.max(passed));
            }
            (one, other) => {
                prop_assert_eq!(one, other);
                prop_assert_eq!(passed, slowly.passed);
            }
        }
    }
}

/// Pieces of requests, good and bad.
const PARTS: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /x HTTP/1.1\r\n",
    "Host: a\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "X: y\r\n",
    "Upgrade: websocket\r\n",
    "\r\n",
    "\r\n",
    "abc",
    "3\r\nabc\r\n",
    "0\r\n\r\n",
    "0\r\nA: b\r\n\r\n",
    "\n",
    "\r",
    " ",
    ";",
];
