//! The tool's login to the platform's registry, in `~/.docker/config.json`.
//!
//! Only the entry of the platform's own registry is ours, and only while it names the tool's own user. Whatever else
//! stands in the file stays, and a file that is not what it should be is left alone.

use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

use crate::ToolName;

/// What the file says about the platform's registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Nothing, or there is no file.
    Missing,
    /// The tool's own login, with this password.
    Own(String),
    /// A login as somebody else, which the maintainers chose.
    Other,
    /// The file cannot be read as a Docker configuration; the reason.
    Unusable(String),
}

/// The registry's user for a tool.
pub fn user(tool: &ToolName) -> String {
    tool.namespace()
}

/// Reads the login to `registry` (host, or host and port) out of the file's content.
pub fn login(existing: Option<&str>, registry: &str, tool: &ToolName) -> Login {
    let file = match parse(existing) {
        Ok(file) => file,
        Err(reason) => return Login::Unusable(reason),
    };
    let Some(entry) = file.get("auths").and_then(|auths| auths.get(registry)) else { return Login::Missing };
    let Some(auth) = entry.get("auth") else { return Login::Other };
    let decoded = serde_json::from_value::<ByteString>(auth.clone()).ok();
    match decoded.and_then(|ByteString(bytes)| String::from_utf8(bytes).ok()) {
        Some(text) => match text.split_once(':') {
            Some((name, password)) if name == user(tool) => Login::Own(password.to_owned()),
            _ => Login::Other,
        },
        None => Login::Other,
    }
}

/// The file with the tool's login in it.
///
/// # Errors
/// The file is not a Docker configuration; the reason, as the rest of a sentence.
pub fn merge(existing: Option<&str>, registry: &str, tool: &ToolName, password: &str) -> Result<String, String> {
    let mut file = parse(existing)?;
    let login = ByteString(format!("{}:{password}", user(tool)).into_bytes());
    let auths = file.entry("auths").or_insert_with(|| json!({}));
    if let Some(auths) = auths.as_object_mut() {
        auths.insert(registry.to_owned(), json!({ "auth": login }));
    }
    serde_json::to_string_pretty(&file).map(|text| text + "\n").map_err(|e| e.to_string())
}

fn parse(existing: Option<&str>) -> Result<Map<String, Value>, String> {
    let Some(text) = existing.filter(|text| !text.trim().is_empty()) else { return Ok(Map::new()) };
    let file: Map<String, Value> = serde_json::from_str(text).map_err(|e| format!("it is not a JSON object: {e}"))?;
    match file.get("auths") {
        None | Some(Value::Object(_)) => Ok(file),
        Some(_) => Err("its 'auths' is not an object".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTRY: &str = "registry.example";

    fn tool() -> ToolName {
        "wikibot".parse().unwrap()
    }

    #[test]
    fn a_login_is_written_and_read_back() {
        let file = merge(None, REGISTRY, &tool(), "secret:1").unwrap();
        assert_eq!(
            file,
            "{\n  \"auths\": {\n    \"registry.example\": {\n      \"auth\": \"dG9vbC13aWtpYm90OnNlY3JldDox\"\n    }\n  }\n}\n"
        );
        assert_eq!(login(Some(&file), REGISTRY, &tool()), Login::Own("secret:1".to_owned()));
        assert_eq!(login(Some(&file), REGISTRY, &"other".parse().unwrap()), Login::Other);
        assert_eq!(login(Some(&file), "elsewhere.example", &tool()), Login::Missing);
    }

    #[test]
    fn the_rest_of_the_file_stays() {
        let existing = r#"{"auths":{"other.example":{"auth":"eDp5"}},"credsStore":"pass"}"#;
        let file: Value = serde_json::from_str(&merge(Some(existing), REGISTRY, &tool(), "p").unwrap()).unwrap();
        assert_eq!(file["auths"]["other.example"]["auth"], "eDp5");
        assert_eq!(file["credsStore"], "pass");
    }

    #[test]
    fn a_damaged_file_is_left_alone() {
        for bad in ["[]", "{", r#"{"auths":[]}"#, "null"] {
            assert!(matches!(login(Some(bad), REGISTRY, &tool()), Login::Unusable(_)), "{bad}");
            assert!(merge(Some(bad), REGISTRY, &tool(), "p").is_err(), "{bad}");
        }
        assert_eq!(login(Some(" \n"), REGISTRY, &tool()), Login::Missing);
        assert_eq!(login(Some(r#"{"auths":{"registry.example":{}}}"#), REGISTRY, &tool()), Login::Other);
    }
}
