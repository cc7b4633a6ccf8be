//! What a newcomer does, from the first page to a tool of their own: the lines of the README, word for word.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::platform::{DOMAIN, SOON, eventually, platform, url};

#[test]
fn the_first_tool_is_served_over_tls() {
    let (platform, _calm) = platform();
    let answer = platform.page("hello");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("<html"), "{answer:?}");

    let plain = platform.get(&format!("http://hello.{DOMAIN}/a?b=c"));
    assert_eq!((plain.status, plain.location.as_str()), (301, "https://hello.hearth.localhost/a?b=c"), "{plain:?}");
}

#[test]
fn a_maintainer_puts_a_tool_on_the_web() {
    let (platform, _calm) = platform();
    let said = platform.hearth(&["tool", "create", "wikibot", "--maintainer", "member1"]);
    said.says(0, &["Created the tool 'wikibot'", "webservice TYPE start"]);
    eventually(SOON, "member1 becomes wikibot", || {
        let said = platform.ssh("member1", "become wikibot test -e .kube/config", "");
        if said.code == Some(0) { Ok(()) } else { Err(format!("{said:?}")) }
    });

    let typed = "become wikibot\n\
                 mkdir -p ~/public_html && echo hi > ~/public_html/index.html\n\
                 webservice static start\n\
                 webservice status\n\
                 kubectl get pods\n";
    let said = platform.ssh("member1", "", typed).success("the session");
    assert!(said.all().contains("https://wikibot.hearth.localhost/"), "{said:?}");
    assert!(said.all().contains("Your webservice of type static is running on backend kubernetes"), "{said:?}");
    assert!(said.all().contains("wikibot-") && said.all().contains("Running"), "{said:?}");
    // It was said to be running, so it answers, without any waiting here.
    let answer = platform.page("wikibot");
    assert_eq!((answer.status, answer.body.as_str()), (200, "hi\n"), "{answer:?}");

    let (restarted, asked) = (AtomicBool::new(false), std::sync::Mutex::new(Vec::new()));
    let said = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !restarted.load(Ordering::Relaxed) {
                asked.lock().unwrap().push(platform.try_get(&url("wikibot")).map(|answer| answer.status));
            }
        });
        let said = platform.as_tool("wikibot", "webservice restart");
        restarted.store(true, Ordering::Relaxed);
        said
    });
    assert!(said.success("webservice restart").all().contains("https://wikibot.hearth.localhost/"));
    let asked = asked.into_inner().unwrap();
    assert!(asked.len() > 5 && asked.iter().all(|answer| *answer == Ok(200)), "{asked:?}");

    let said = platform.as_tool("wikibot", "webservice stop").success("webservice stop");
    assert!(said.all().contains("Your webservice is stopped"), "{said:?}");
    platform.answers("wikibot", 503, "webservice start");
    let page = platform.page("wikibot");
    assert!(page.body.contains("wikibot") && page.body.contains("member1"), "{page:?}");
    platform.as_tool("wikibot", "webservice status").says(0, &["Your webservice is not running"]);
}

#[test]
fn a_python_tool_serves() {
    let (platform, _calm) = platform();
    platform.tool("snake", "member1");
    let said = platform.as_tool("snake", "webservice python3.11 start");
    said.says(1, &["the type 'python3.11' needs the folder ~/www/python/src"]);
    let app = "def app(environ, start):\n    \
               start(\"200 OK\", [(\"Content-Type\", \"text/plain\")])\n    \
               return [(\"path \" + environ[\"PATH_INFO\"]).encode()]\n";
    let write = "become snake bash -c 'mkdir -p ~/www/python/src && cat > ~/www/python/src/app.py'";
    platform.ssh("member1", write, app).success("writing the program");
    platform.as_tool("snake", "webservice python3.11 start").success("webservice python3.11 start");
    let answer = platform.get(&format!("{}one/two", url("snake")));
    assert_eq!((answer.status, answer.body.as_str()), (200, "path /one/two"), "{answer:?}");
    // What it was started with is remembered for as long as it runs.
    let said = platform.as_tool("snake", "webservice restart").success("webservice restart");
    assert!(said.all().contains("python3.11"), "{said:?}");
    assert_eq!(platform.page("snake").status, 200);
}

#[test]
fn without_a_type_the_types_are_told() {
    let (platform, _calm) = platform();
    platform.tool("typeless", "member1");
    platform
        .as_tool("typeless", "webservice start")
        .says(1, &["no type of web service is given", "static", "python3.11"]);
    platform.as_tool("typeless", "webservice perl start").says(1, &["'perl' is not a type", "static", "python3.11"]);
}
