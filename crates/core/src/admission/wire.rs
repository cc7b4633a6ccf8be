//! Reviews as the API server sends them (`admission.k8s.io/v1`), read as far as they are looked at.
//!
//! Texts are borrowed from what was sent. What is not looked at is passed over, whatever it is: a review says what its
//! object is before it shows it, and by then it is known which of its fields count.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::fields::{self, Book};
use super::json::{Partly, Value};
use super::kept::Kept;
use super::{Operation, Request, Rules};

/// The version of the protocol.
pub const API_VERSION: &str = "admission.k8s.io/v1";

/// The kind of what is sent and answered.
pub const KIND: &str = "AdmissionReview";

/// What is asked.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The identity of the question, which its answer repeats.
    pub uid: Cow<'a, str>,
    /// What it is about.
    pub resource: Resource<'a>,
    /// The subresource, or empty.
    pub sub_resource: Cow<'a, str>,
    /// The object's name; empty where it has yet to get one.
    pub name: Cow<'a, str>,
    /// The object's namespace.
    pub namespace: Cow<'a, str>,
    /// What is being done.
    pub operation: Operation,
    /// Who does it.
    pub user_info: User<'a>,
    /// The object as it would be stored, as far as the rules look at it.
    pub object: Value<'a>,
    /// The object as it is stored; null where there is none.
    pub old_object: Value<'a>,
}

impl Asked<'_> {
    /// The question to the rulebook; a review does not carry the annotations of its namespace.
    pub fn request<'v>(&'v self, annotations: &'v BTreeMap<String, String>) -> Request<'v, Value<'v>> {
        Request {
            operation: self.operation,
            group: &self.resource.group,
            resource: &self.resource.resource,
            subresource: &self.sub_resource,
            namespace: &self.namespace,
            user: &self.user_info.username,
            object: &self.object,
            old: Some(&self.old_object).filter(|old| !old.is_null()),
            annotations,
        }
    }
}

/// A resource of the API.
#[derive(Debug, Deserialize)]
pub struct Resource<'a> {
    /// Its group, empty for the core group.
    #[serde(borrow, default)]
    pub group: Cow<'a, str>,
    /// Its name, in the plural.
    #[serde(borrow)]
    pub resource: Cow<'a, str>,
}

/// A user of the API.
#[derive(Debug, Default, Deserialize)]
pub struct User<'a> {
    /// The name.
    #[serde(borrow, default)]
    pub username: Cow<'a, str>,
}

/// What is no review, or not one of this version.
#[derive(Debug)]
pub struct NotAReview<'a> {
    /// The identity by which an answer finds its question, as far as there is one.
    pub uid: Cow<'a, str>,
    /// Why not: a sentence without its full stop.
    pub why: String,
}

/// A text that may be borrowed.
#[derive(Debug, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Debug, Default, Deserialize)]
struct Identified<'a> {
    #[serde(borrow, default)]
    request: Identity<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct Identity<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
}

/// Reads a review that is to be judged by these rules, whatever it is.
pub fn read<'a>(rules: &Rules, body: &'a [u8]) -> Result<Asked<'a>, NotAReview<'a>> {
    let not_one = |uid, error: &dyn fmt::Display| NotAReview {
        uid,
        why: format!("this is not an {KIND} of {API_VERSION}: {error}"),
    };
    let text = std::str::from_utf8(body).map_err(|error| not_one(Cow::default(), &error))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = Reviews { rules }.deserialize(&mut deserializer);
    match read.and_then(|review| deserializer.end().map(|()| review)) {
        Ok(Review { api_version, kind, request }) if api_version == API_VERSION && kind == KIND => Ok(request),
        Ok(Review { api_version, kind, request }) => Err(NotAReview {
            uid: request.uid,
            why: format!("a {kind} of {api_version} was sent; expected is {KIND} of {API_VERSION}"),
        }),
        Err(error) => {
            let identified = serde_json::from_str::<Identified<'_>>(text).unwrap_or_default();
            Err(not_one(identified.request.uid, &error))
        }
    }
}

// === reading ===

struct Review<'a> {
    api_version: Cow<'a, str>,
    kind: Cow<'a, str>,
    request: Asked<'a>,
}

/// The reading of a review.
struct Reviews<'r> {
    rules: &'r Rules,
}

/// The reading of its request.
struct Requests<'r> {
    rules: &'r Rules,
}

/// What has been read of a request.
#[derive(Default)]
struct Parts<'a> {
    uid: Option<Cow<'a, str>>,
    resource: Option<Resource<'a>>,
    sub_resource: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    namespace: Option<Cow<'a, str>>,
    operation: Option<Operation>,
    user_info: Option<User<'a>>,
    object: Option<Value<'a>>,
    old_object: Option<Value<'a>>,
}

impl<'de> DeserializeSeed<'de> for Reviews<'_> {
    type Value = Review<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reviews<'_> {
    type Value = Review<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a review")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut api_version, mut kind, mut request) = (None, None, None);
        while let Some(Text(field)) = map.next_key()? {
            match &*field {
                "apiVersion" => once(&mut api_version, "apiVersion", map.next_value::<Text<'_>>()?.0)?,
                "kind" => once(&mut kind, "kind", map.next_value::<Text<'_>>()?.0)?,
                "request" => {
                    once(&mut request, "request", map.next_value_seed(Requests { rules: self.rules })?)?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Review {
            api_version: needed(api_version, "apiVersion")?,
            kind: needed(kind, "kind")?,
            request: needed(request, "request")?,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Requests<'_> {
    type Value = Asked<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Requests<'_> {
    type Value = Asked<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut parts = Parts::default();
        while let Some(Text(field)) = map.next_key()? {
            match &*field {
                "uid" => once(&mut parts.uid, "uid", map.next_value::<Text<'_>>()?.0)?,
                "resource" => once(&mut parts.resource, "resource", map.next_value()?)?,
                "subResource" => once(&mut parts.sub_resource, "subResource", map.next_value::<Text<'_>>()?.0)?,
                "name" => once(&mut parts.name, "name", map.next_value::<Text<'_>>()?.0)?,
                "namespace" => once(&mut parts.namespace, "namespace", map.next_value::<Text<'_>>()?.0)?,
                "operation" => {
                    let operation = match &*map.next_value::<Text<'_>>()?.0 {
                        "CREATE" => Operation::Create,
                        "UPDATE" => Operation::Update,
                        _ => Operation::Other,
                    };
                    once(&mut parts.operation, "operation", operation)?;
                }
                "userInfo" => once(&mut parts.user_info, "userInfo", map.next_value()?)?,
                "object" => {
                    let object = map.next_value_seed(Partly(parts.kept(self.rules)))?;
                    once(&mut parts.object, "object", object)?;
                }
                "oldObject" => once(&mut parts.old_object, "oldObject", map.next_value()?)?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Asked {
            uid: needed(parts.uid, "uid")?,
            resource: needed(parts.resource, "resource")?,
            sub_resource: parts.sub_resource.unwrap_or_default(),
            name: parts.name.unwrap_or_default(),
            namespace: parts.namespace.unwrap_or_default(),
            operation: needed(parts.operation, "operation")?,
            user_info: parts.user_info.unwrap_or_default(),
            object: parts.object.unwrap_or_default(),
            old_object: parts.old_object.unwrap_or_default(),
        })
    }
}

impl Parts<'_> {
    /// What is looked at of the object that comes next. A change is held against what is stored, so all of it is; and
    /// so it is where the object comes before what is said of it.
    fn kept(&self, rules: &Rules) -> Kept {
        let (Some(resource), Some(namespace), Some(Operation::Create)) =
            (&self.resource, &self.namespace, self.operation)
        else {
            return Kept::Object;
        };
        let kind = rules.namespaces.kind(namespace);
        let sub_resource = self.sub_resource.as_deref().unwrap_or_default();
        match fields::book(kind, &resource.group, &resource.resource, sub_resource) {
            Some(Book::Fields { sections, .. }) => Kept::of_object(sections),
            _ => Kept::Object,
        }
    }
}

fn once<T, E: Error>(part: &mut Option<T>, name: &'static str, value: T) -> Result<(), E> {
    match part.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(name)),
    }
}

fn needed<T, E: Error>(part: Option<T>, name: &'static str) -> Result<T, E> {
    part.ok_or_else(|| E::missing_field(name))
}
