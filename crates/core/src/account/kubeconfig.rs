//! A tool's or an administrator's `~/.kube/config`: what is in it, and the same file with the platform's entries in it.
//!
//! Of the file only three entries are ours: the cluster and the context `toolforge` and the user `tf-<name>`
//! (names as the original has them). Contexts that its people added stay, and so does their choice of the
//! current one. A file that is not a kubeconfig is left alone.

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::owner::Owner;

/// The cluster's and the context's name.
pub const CLUSTER: &str = "toolforge";

/// How clients find and trust the API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// The URL.
    pub url: String,
    /// The name in the server's certificate.
    pub tls_name: String,
    /// The server's certificate authority, PEM.
    pub ca: String,
}

/// A certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    /// The certificate and its chain.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// What a file says about the platform's cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// Nothing, or there is no file.
    Missing,
    /// The platform's entries.
    Entry {
        /// The server, where all of it is there.
        server: Option<Server>,
        /// The certificate, PEM, where there are a certificate and a key.
        certificate: Option<String>,
    },
    /// The file cannot be read as a kubeconfig; the reason.
    Unusable(String),
}

/// The user's name in the file.
pub fn user(owner: &Owner) -> String {
    format!("tf-{}", owner.name())
}

/// Reads the platform's entries out of a file's content.
pub fn find(existing: Option<&str>, owner: &Owner) -> Found {
    let file = match parse(existing) {
        Ok(file) => file,
        Err(reason) => return Found::Unusable(reason),
    };
    let item = |list: &str, name: &str, field: &str| -> Option<Value> {
        let items = file.get(list)?.as_array()?;
        items.iter().find(|item| item.get("name").is_some_and(|n| n == name))?.get(field).cloned()
    };
    let Some(cluster) = item("clusters", CLUSTER, "cluster") else { return Found::Missing };
    let user_name = user(owner);
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
    let pem = |value: &Value, field: &str| {
        let ByteString(bytes) = serde_json::from_value(value.get(field)?.clone()).ok()?;
        String::from_utf8(bytes).ok()
    };
    let server = || {
        Some(Server {
            url: text(&cluster, "server")?,
            tls_name: text(&cluster, "tls-server-name")?,
            ca: pem(&cluster, "certificate-authority-data")?,
        })
    };
    let user = item("users", &user_name, "user");
    let context = item("contexts", CLUSTER, "context");
    let certificate = user.filter(|user| pem(user, "client-key-data").is_some_and(|key| !key.is_empty()));
    let complete = context.is_some_and(|context| context == our_context(owner));
    Found::Entry {
        server: server(),
        certificate: certificate.filter(|_| complete).and_then(|user| pem(&user, "client-certificate-data")),
    }
}

/// The file with the platform's entries in it, and with everything else as it was.
///
/// # Errors
/// The file is not a kubeconfig; the reason, as the rest of a sentence.
pub fn merge(existing: Option<&str>, owner: &Owner, server: &Server, pair: &KeyPair) -> Result<String, String> {
    let mut file = parse(existing)?;
    let data = |pem: &str| json!(ByteString(pem.as_bytes().to_vec()));
    let cluster = json!({
        "server": server.url,
        "tls-server-name": server.tls_name,
        "certificate-authority-data": data(&server.ca),
    });
    let credentials = json!({ "client-certificate-data": data(&pair.certificate), "client-key-data": data(&pair.key) });
    replace(&mut file, "clusters", CLUSTER, "cluster", cluster);
    replace(&mut file, "contexts", CLUSTER, "context", our_context(owner));
    replace(&mut file, "users", &user(owner), "user", credentials);
    for (field, value) in [("apiVersion", "v1"), ("kind", "Config"), ("current-context", CLUSTER)] {
        let field = file.entry(field).or_insert(Value::Null);
        if field.is_null() || field == "" {
            *field = json!(value);
        }
    }
    serde_saphyr::to_string(&file).map_err(|e| e.to_string())
}

fn our_context(owner: &Owner) -> Value {
    json!({ "cluster": CLUSTER, "namespace": owner.namespace(), "user": user(owner) })
}

/// Replaces the first item of that name in a list, or adds one at the end.
fn replace(file: &mut Map<String, Value>, list: &str, name: &str, field: &str, content: Value) {
    let items = file.entry(list).or_insert_with(|| json!([]));
    if items.is_null() {
        *items = json!([]);
    }
    let Some(items) = items.as_array_mut() else { return };
    let item = json!({ "name": name, field: content });
    match items.iter_mut().find(|item| item.get("name").is_some_and(|n| n == name)) {
        Some(found) => *found = item,
        None => items.push(item),
    }
}

fn parse(existing: Option<&str>) -> Result<Map<String, Value>, String> {
    let Some(text) = existing.filter(|text| !text.trim().is_empty()) else { return Ok(Map::new()) };
    let file: Map<String, Value> =
        serde_saphyr::from_str(text).map_err(|_| "it is not a YAML mapping, or one with faults".to_owned())?;
    for list in ["clusters", "contexts", "users"] {
        if !matches!(file.get(list), None | Some(Value::Null | Value::Array(_))) {
            return Err(format!("its '{list}' is not a list"));
        }
    }
    if file.get("kind").is_some_and(|kind| !kind.is_null() && kind != "Config") {
        return Err("its kind is not 'Config'".to_owned());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool() -> Owner {
        "tool:wikibot".parse().unwrap()
    }

    fn server() -> Server {
        Server { url: "https://10.88.0.2:6443".into(), tls_name: "api.hearth.internal".into(), ca: "CA\n".into() }
    }

    fn pair(n: u8) -> KeyPair {
        KeyPair { certificate: format!("certificate {n}\n"), key: format!("key {n}\n") }
    }

    fn parsed(text: &str) -> Value {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn a_new_file_is_complete() {
        let file = merge(None, &tool(), &server(), &pair(1)).unwrap();
        assert_eq!(file, include_str!("golden/kubeconfig.yaml"), "\n{file}");
        let found = Found::Entry { server: Some(server()), certificate: Some(pair(1).certificate) };
        assert_eq!(find(Some(&file), &tool()), found);
        assert_eq!(merge(Some(&file), &tool(), &server(), &pair(1)), Ok(file.clone()));
        let renewed = parsed(&merge(Some(&file), &tool(), &server(), &pair(2)).unwrap());
        assert_eq!(renewed["users"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn an_administrators_file_names_no_tool() {
        let admin: Owner = "admin:jane".parse().unwrap();
        let file = merge(None, &admin, &server(), &pair(1)).unwrap();
        let context = &parsed(&file)["contexts"][0]["context"];
        assert_eq!((&context["namespace"], &context["user"]), (&json!("default"), &json!("tf-jane")));
        assert_ne!(find(Some(&file), &admin), Found::Missing);
    }

    #[test]
    fn other_contexts_stay_and_the_current_one_is_not_switched() {
        let existing = "
apiVersion: v1
kind: Config
current-context: mine
preferences: {colors: true}
clusters:
- {name: elsewhere, cluster: {server: 'https://else.example', proxy-url: 'yes'}}
contexts:
- {name: mine, context: {cluster: elsewhere, user: '123', namespace: 'null'}}
users:
- {name: '123', user: {token: '0x10'}}
";
        let before = parsed(existing);
        let after = parsed(&merge(Some(existing), &tool(), &server(), &pair(1)).unwrap());
        for field in ["current-context", "preferences", "apiVersion"] {
            assert_eq!(before[field], after[field], "{field}");
        }
        for list in ["clusters", "contexts", "users"] {
            assert_eq!(before[list][0], after[list][0], "{list}");
            assert_eq!(after[list].as_array().unwrap().len(), 2, "{list}");
        }
    }

    #[test]
    fn empty_parts_are_filled() {
        let existing = "clusters: null\nusers: []\ncurrent-context: ''\n";
        let after = parsed(&merge(Some(existing), &tool(), &server(), &pair(1)).unwrap());
        assert_eq!(after["current-context"], "toolforge");
        assert_eq!(find(Some("\n"), &tool()), Found::Missing);
        assert_eq!(find(Some(existing), &tool()), Found::Missing);
    }

    #[test]
    fn what_is_not_a_kubeconfig_is_left_alone() {
        for bad in ["- a", "a: [", "just text", "clusters: {}", "kind: Secret", "a: 1\na: 2\nclusters: 3"] {
            assert!(merge(Some(bad), &tool(), &server(), &pair(1)).is_err(), "{bad}");
            assert!(matches!(find(Some(bad), &tool()), Found::Unusable(_)), "{bad}");
        }
    }

    #[test]
    fn a_damaged_entry_counts_as_without_a_certificate() {
        let file = merge(None, &tool(), &server(), &pair(1)).unwrap();
        for damage in [("client-key-data", "other"), ("tool-wikibot", "tool-other"), ("tf-wikibot", "tf-x")] {
            let found = find(Some(&file.replace(damage.0, damage.1)), &tool());
            assert_eq!(found, Found::Entry { server: Some(server()), certificate: None }, "{damage:?}");
        }
    }
}
