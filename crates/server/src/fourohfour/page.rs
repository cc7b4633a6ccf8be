//! Which page a visitor gets: what is wrong, whose it is, and what can be done by whom.

use hearth_core::route::Reason;
use hearth_core::{Host, ToolName};

use super::suggest::suggest;
use super::tools::Tools;

/// What is known of a request: from the front door's fields where there are any, else from its host.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) reason: Option<Reason>,
    pub(super) tool: Option<ToolName>,
    pub(super) host: Option<Host>,
    pub(super) port: Option<u16>,
}

/// A page before it has a form. No text in it is the visitor's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) reason: Reason,
    pub(super) tool: Option<ToolName>,
    pub(super) title: String,
    /// What is so, in sentences; a paragraph each.
    pub(super) text: Vec<String>,
    pub(super) maintainers: Vec<String>,
    /// What someone can do: who, and lines to type.
    pub(super) advice: Vec<Advice>,
    /// Names that may have been meant, with their URLs.
    pub(super) suggestions: Vec<(ToolName, String)>,
    /// Seconds after which it may be different.
    pub(super) retry_after: Option<u32>,
}

/// What someone can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) whom: &'static str,
    pub(super) lines: Vec<String>,
}

/// Decides from the request and what is known of tools.
pub(super) fn decide(tools: &Tools, asked: Asked) -> Page {
    let from_host = asked.host.as_ref().and_then(|host| host.as_str().split('.').next()?.parse::<ToolName>().ok());
    let name = match asked.reason {
        Some(_) => asked.tool.clone(),
        None => from_host,
    };
    let known = name.as_ref().and_then(|name| tools.get(name));
    let reason = match asked.reason {
        // The front door may have heard of a tool a moment earlier or later.
        Some(Reason::UnknownTool) if known.is_some() => Reason::NoWebService,
        Some(reason) => reason,
        None if known.is_some() => Reason::NoWebService,
        None => Reason::UnknownTool,
    };
    match (reason, name) {
        (Reason::Apex, _) => apex(),
        (Reason::UnknownTool, Some(name)) if tools.is_complete() => unknown_tool(tools, &asked, name),
        (Reason::UnknownTool, Some(_)) => starting(),
        (Reason::UnknownTool | Reason::UnknownHost, _) => unknown_host(),
        (_, Some(name)) => {
            let tool = known.unwrap_or_default();
            let mut page = if tool.disabled { disabled(name) } else { of_tool(reason, name) };
            page.maintainers = tool.maintainers;
            page
        }
        (_, None) => of_nobody(reason),
    }
}

fn page(reason: Reason, title: impl Into<String>, text: Vec<String>) -> Page {
    Page {
        status: reason.status(),
        reason,
        tool: None,
        title: title.into(),
        text,
        maintainers: Vec::new(),
        advice: Vec::new(),
        suggestions: Vec::new(),
        retry_after: (reason.status() == 503).then_some(60),
    }
}

fn apex() -> Page {
    let text = vec![
        "This is Hearth, a platform on which a community runs its web tools.".to_owned(),
        "Every tool has a host of its own, in front of this domain.".to_owned(),
    ];
    let lines = vec!["webservice TYPE start".to_owned()];
    let advice = vec![Advice { whom: "If you maintain a tool, its pages are one command away", lines }];
    Page { advice, ..page(Reason::Apex, "Hearth", text) }
}

fn unknown_tool(tools: &Tools, asked: &Asked, name: ToolName) -> Page {
    let text = vec![format!("The URL you have requested belongs to no tool: there is none with the name {name} here.")];
    let suggestions = tools.with_active(|names| suggest(&name, names));
    let suggestions = suggestions.into_iter().map(|near| (url(asked, &name, &near), near)).map(|(u, n)| (n, u));
    let mut advice = Vec::new();
    if let Ok(free) = ToolName::for_creation(name.as_str(), &[]) {
        let lines = vec![format!("hearth tool create {free} --maintainer YOUR-ACCOUNT")];
        let whom = "The name is free. An operator of this platform makes a tool of that name for you with";
        advice.push(Advice { whom, lines });
    }
    Page {
        suggestions: suggestions.collect(),
        tool: Some(name),
        advice,
        ..page(Reason::UnknownTool, "No tool of this name", text)
    }
}

fn unknown_host() -> Page {
    let text = vec!["The URL you have requested cannot be that of a tool on this platform.".to_owned()];
    page(Reason::UnknownHost, "No such address", text)
}

fn starting() -> Page {
    let text =
        vec!["The platform is starting and does not know its tools yet. Please try again in a moment.".to_owned()];
    Page { retry_after: Some(5), ..page(Reason::Stale, "One moment", text) }
}

fn disabled(name: ToolName) -> Page {
    let text = vec![
        format!("The tool {name} is disabled: its pages are switched off, and its files are kept for a while."),
        "Its maintainers, or the operators of this platform, can have it enabled again.".to_owned(),
    ];
    let advice =
        vec![Advice { whom: "For an operator of this platform", lines: vec![format!("hearth tool enable {name}")] }];
    Page { tool: Some(name), advice, retry_after: None, ..page(Reason::NoWebService, "This tool is disabled", text) }
}

fn of_tool(reason: Reason, name: ToolName) -> Page {
    let (title, text, lines) = match reason {
        Reason::Unavailable => (
            "This tool is not answering",
            "has a web service, but none of its processes is ready. It may be starting, or it may have \
             failed. The platform itself is well.",
            vec!["webservice status".to_owned(), "kubectl get pods".to_owned(), "kubectl logs -l name=".to_owned()],
        ),
        Reason::Unreachable | Reason::BrokenAnswer => (
            "This tool is not answering",
            "was asked for this page and did not answer it. The platform itself is well.",
            vec!["webservice status".to_owned(), "kubectl logs -l name=".to_owned()],
        ),
        Reason::NoAnswer => (
            "This tool is too slow",
            "did not answer in time. The platform itself is well.",
            vec!["webservice status".to_owned(), "webservice restart".to_owned()],
        ),
        _ => (
            "No web service",
            "exists, but serves nothing at this address. It may have no web interface, or it may be \
             stopped. The platform itself is well.",
            vec!["webservice start".to_owned()],
        ),
    };
    let mut all = vec![format!("become {name}")];
    all.extend(lines.into_iter().map(|line| if line.ends_with('=') { format!("{line}{name}") } else { line }));
    let text =
        vec![format!("The tool {name} {text}"), "If you expected a page here, please tell its maintainers.".to_owned()];
    Page {
        tool: Some(name),
        advice: vec![Advice { whom: "If you are one of them", lines: all }],
        ..page(reason, title, text)
    }
}

fn of_nobody(reason: Reason) -> Page {
    page(reason, "Not available", vec!["The page is not available right now. Please try again in a minute.".to_owned()])
}

/// The URL of the tool `near`, formed as the visitor's own: before the same domain, or as a path of the same host.
fn url(asked: &Asked, name: &ToolName, near: &ToolName) -> String {
    let port = asked.port.map(|port| format!(":{port}")).unwrap_or_default();
    let domain = asked.host.as_ref().and_then(|host| host.as_str().strip_prefix(name.as_str())?.strip_prefix('.'));
    match domain {
        Some(domain) => format!("//{near}.{domain}{port}/"),
        None => format!("/{near}/"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tools::Tool;
    use super::*;

    fn tools() -> Tools {
        let tools = Tools::default();
        let ada = || vec!["ada".to_owned()];
        tools.replace(BTreeMap::from([
            ("wikibot".parse().unwrap(), Tool { maintainers: ada(), disabled: false }),
            ("wikibog".parse().unwrap(), Tool { maintainers: ada(), disabled: true }),
        ]));
        tools
    }

    fn check(reason: Option<Reason>, tool: Option<&str>, host: &str, expected: (u16, &str)) -> Page {
        let asked = Asked { reason, tool: tool.map(|t| t.parse().unwrap()), host: host.parse().ok(), port: None };
        let page = decide(&tools(), asked);
        assert_eq!((page.status, page.title.as_str()), expected, "{reason:?} {tool:?} {host}");
        page
    }

    #[test]
    fn pages() {
        use Reason::{Apex, NoAnswer, NoWebService, Unavailable, UnknownHost, UnknownTool, Unreachable};
        let host = "wikibot.hearth.example";
        check(Some(Apex), None, "hearth.example", (200, "Hearth"));
        check(Some(UnknownHost), None, "x.y.hearth.example", (404, "No such address"));
        check(Some(UnknownTool), Some("wikibot"), host, (503, "No web service"));
        check(Some(Unreachable), Some("wikibot"), host, (502, "This tool is not answering"));
        check(Some(NoAnswer), Some("wikibot"), host, (504, "This tool is too slow"));
        check(Some(Reason::Stale), None, host, (503, "Not available"));
        let page = check(Some(NoWebService), Some("wikibot"), host, (503, "No web service"));
        assert_eq!(page.maintainers, ["ada"]);
        assert_eq!(page.advice[0].lines, ["become wikibot", "webservice start"]);
        assert_eq!(page.retry_after, Some(60));
        let page = check(Some(Unavailable), Some("wikibot"), host, (503, "This tool is not answering"));
        assert!(page.advice[0].lines.contains(&"kubectl logs -l name=wikibot".to_owned()));
        check(Some(NoWebService), Some("wikibog"), "wikibog.hearth.example", (503, "This tool is disabled"));
    }

    #[test]
    fn unknown_tools_and_their_neighbours() {
        let unknown = (404, "No tool of this name");
        let page = check(Some(Reason::UnknownTool), Some("wikibto"), "wikibto.hearth.example", unknown);
        assert!(page.text[0].contains("The URL you have requested"));
        let suggested = vec![("wikibot".parse().unwrap(), "//wikibot.hearth.example/".to_owned())];
        assert_eq!(page.suggestions, suggested, "a disabled tool is not suggested");
        assert_eq!(page.advice[0].lines, ["hearth tool create wikibto --maintainer YOUR-ACCOUNT"]);
        let legacy = check(Some(Reason::UnknownTool), Some("wikibto"), "old.example", unknown);
        assert_eq!(legacy.suggestions[0].1, "/wikibot/");
        assert!(check(Some(Reason::UnknownTool), Some("www"), "www.hearth.example", unknown).advice.is_empty());
    }

    #[test]
    fn without_the_front_doors_word_the_host_decides() {
        check(None, None, "wikibot.hearth.example", (503, "No web service"));
        check(None, Some("wikibot"), "other.hearth.example", (404, "No tool of this name"));
        check(None, None, "", (404, "No such address"));
    }

    #[test]
    fn nothing_is_unknown_before_all_is_known() {
        let asked = Asked { host: "x.hearth.example".parse().ok(), ..Asked::default() };
        assert_eq!(decide(&Tools::default(), asked).status, 503);
    }
}
