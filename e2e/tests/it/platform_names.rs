//! Names: which a tool may have, and what is said of those that nobody has.

use crate::platform::{DOMAIN, platform};

#[test]
fn names_that_cannot_be_are_refused_with_the_rule() {
    let (platform, _calm) = platform();
    let long = "a".repeat(33);
    let refused = [
        ("Wiki_Bot", "only lower-case letters, digits and hyphens are allowed"),
        ("-a", "only lower-case letters"),
        ("1st", "must start with a letter"),
        (&long, "at most 32 are allowed"),
        ("www", "is reserved; choose another"),
        ("xn--bcher-kva", "is reserved; choose another"),
        ("hello", "the tool name 'hello' is taken; choose another"),
        ("fourohfour", "is taken; choose another"),
    ];
    for (name, rule) in refused {
        let create = ["tool", "create", "--maintainer", "member1", "--", name];
        let said = platform.hearth(&create);
        said.says(1, &["hearth: ", rule]);
        assert_eq!(said.err.lines().count(), 1, "{said:?}");
    }
    let said = platform.hearth(&["tool", "create", "orphan", "--maintainer", "nobody-here"]);
    said.says(1, &["there is no person 'nobody-here' in the directory", "hearth person list"]);
    let said = platform.hearth(&["tool", "create", "orphan", "--maintainer", "No Body"]);
    said.says(2, &["'No Body' is not the name of a person", "lower-case letters"]);
    let list = platform.hearth(&["tool", "list"]).success("hearth tool list");
    assert!(!list.out.contains("orphan") && !list.out.contains("1st"), "{list:?}");
    platform.hearth(&["tool", "show", "orphan"]).says(1, &["there is no tool 'orphan'"]);
}

#[test]
fn addresses_that_serve_nothing_say_so() {
    let (platform, _calm) = platform();
    for address in ["nosuchtool.hearth.localhost", "tools.hearth.localhost/nosuchtool/a"] {
        let answer = platform.get(&format!("https://{address}"));
        assert!(answer.status == 404 && answer.body.contains("there is none with the name"), "{address}: {answer:?}");
        assert!(answer.body.contains("nosuchtool"), "{address}: {answer:?}");
    }
    let answer = platform.get(&format!("https://{DOMAIN}/"));
    assert!(answer.status == 200 && answer.body.contains("Hearth"), "{answer:?}");
    let answer = platform.get("http://www.example.org/");
    assert_eq!(answer.status, 404, "{answer:?}");
}

#[test]
fn a_legacy_url_leads_to_the_tools_own_host() {
    let (platform, _calm) = platform();
    let answer = platform.get(&format!("https://tools.{DOMAIN}/hello/a%20b/c?d=e%26f&g"));
    assert_eq!(answer.status, 308, "{answer:?}");
    assert_eq!(answer.location, format!("https://hello.{DOMAIN}/a%20b/c?d=e%26f&g"));
    let answer = platform.get(&format!("https://tools.{DOMAIN}/hello"));
    assert_eq!((answer.status, answer.location), (308, format!("https://hello.{DOMAIN}/")));
}
