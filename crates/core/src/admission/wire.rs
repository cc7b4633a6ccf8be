//! Reviews as the API server sends them (`admission.k8s.io/v1`), read as far as they are looked at.
//!
//! Texts are borrowed from what was sent. What is not looked at is passed over, whatever it is.

use std::borrow::Cow;

use serde::Deserialize;

use super::json::Value;

/// The version of the protocol.
pub const API_VERSION: &str = "admission.k8s.io/v1";

/// The kind of what is sent and answered.
pub const KIND: &str = "AdmissionReview";

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked<'a> {
    /// The identity of the question, which its answer repeats.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// What it is about.
    #[serde(borrow)]
    pub resource: Resource<'a>,
    /// The subresource, or empty.
    #[serde(borrow, default)]
    pub sub_resource: Cow<'a, str>,
    /// The object's name; empty where it has yet to get one.
    #[serde(borrow, default)]
    pub name: Cow<'a, str>,
    /// The object's namespace.
    #[serde(borrow, default)]
    pub namespace: Cow<'a, str>,
    /// What is being done, as `CREATE`.
    #[serde(borrow)]
    pub operation: Cow<'a, str>,
    /// Who does it.
    #[serde(borrow, default)]
    pub user_info: User<'a>,
    /// The object as it would be stored.
    #[serde(borrow, default)]
    pub object: Value<'a>,
    /// The object as it is stored; null where there is none.
    #[serde(borrow, default)]
    pub old_object: Value<'a>,
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

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request: Asked<'a>,
}

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

/// Reads a review, whatever it is.
pub fn read(body: &[u8]) -> Result<Asked<'_>, NotAReview<'_>> {
    let not_one = |uid, error: &dyn std::fmt::Display| NotAReview {
        uid,
        why: format!("this is not an {KIND} of {API_VERSION}: {error}"),
    };
    let text = std::str::from_utf8(body).map_err(|error| not_one(Cow::default(), &error))?;
    match serde_json::from_str::<Review<'_>>(text) {
        Ok(review) if review.api_version == API_VERSION && review.kind == KIND => Ok(review.request),
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
