//! What an answer of the API server says of an attempt: possible, refused and by what, or nothing.
//!
//! An API server refuses in a fixed order: authorization, then mutating admission, then its own validation, then
//! validating admission. Its answers do not name the stage, so it is read from their wording, which has been stable.

use kube::Error;
use serde_json::{Value, json};

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A tenant can do it.
    Possible,
    /// A tenant cannot.
    Refused {
        /// What refused it.
        by: By,
        /// The API server's words.
        message: String,
    },
    /// It cannot be told.
    Inconclusive(String),
}

/// What refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The tenant has no right to ask.
    Authorization,
    /// A rule about what may be written, by the name that it gave.
    Admission(String),
    /// The API server's own validation: nobody can.
    Schema,
    /// It was accepted, but changed or dropped on the way.
    Correction,
}

/// Longest part of the API server's words that is kept, in characters.
const LONGEST_MESSAGE: usize = 300;

impl Outcome {
    /// What an error says.
    pub fn of_error(error: &Error, quota_is_meant: bool) -> Self {
        let Error::Api(status) = error else {
            return Self::Inconclusive(format!("no answer: {error}"));
        };
        let message = shortened(&status.message);
        let has = |text: &str| status.message.contains(text);
        let unclear = |why: &str| Self::Inconclusive(format!("{why}: {message}"));
        let refused = |by: By| Self::Refused { by, message: message.clone() };
        if has("does not support dry run") {
            return unclear("a webhook cannot be asked without consequences");
        }
        if has("failed calling webhook") {
            return unclear("a webhook did not answer, and nothing passes without it");
        }
        if has("exceeded quota") || has("failed quota") || has("status unknown for quota") {
            return match quota_is_meant {
                true => refused(By::Admission("ResourceQuota".to_owned())),
                false => unclear("the quota is used up, which hides what else would have been said"),
            };
        }
        if let Some(rule) = admission(&status.message) {
            return refused(By::Admission(rule));
        }
        match status.code {
            401 => unclear("the credentials are not accepted"),
            403 if has("cannot") || has("attempting to grant") => refused(By::Authorization),
            403 => refused(By::Admission("a part of the API server".to_owned())),
            400 if has("strict decoding error") || has("no kind") => unclear("this API server does not know it"),
            400 | 422 => refused(By::Schema),
            404 if has("could not find the requested resource") || has("page not found") => {
                unclear("this API server does not serve it")
            }
            404 => unclear("what it needs is not there"),
            405 => unclear("this API server does not serve it so"),
            // The name is taken: everything that could have refused has passed it.
            409 => Self::Possible,
            _ => unclear("the API server did not answer properly"),
        }
    }

    /// `possible`, `refused` or `inconclusive`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Possible => "possible",
            Self::Refused { .. } => "refused",
            Self::Inconclusive(_) => "inconclusive",
        }
    }

    /// By what, or why not told; empty for what is possible.
    pub fn because(&self) -> String {
        match self {
            Self::Possible => String::new(),
            Self::Refused { by: By::Authorization, .. } => "authorization".to_owned(),
            Self::Refused { by: By::Admission(rule), .. } => format!("admission: {rule}"),
            Self::Refused { by: By::Schema, .. } => "schema".to_owned(),
            Self::Refused { by: By::Correction, .. } => "correction".to_owned(),
            Self::Inconclusive(why) => why.clone(),
        }
    }

    /// The API server's words, where it refused.
    pub fn message(&self) -> &str {
        match self {
            Self::Refused { message, .. } => message,
            _ => "",
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({ "result": self.name(), "because": self.because(), "message": self.message() })
    }
}

/// The rule of admission that a refusal names.
fn admission(message: &str) -> Option<String> {
    let quoted = |start: &str, end: char| {
        let (_, after) = message.split_once(start)?;
        after.split_once(end).map(|(name, _)| name.to_owned())
    };
    quoted("admission webhook \"", '"')
        .or_else(|| quoted("ValidatingAdmissionPolicy '", '\''))
        .or_else(|| quoted("violates PodSecurity \"", '"').map(|level| format!("PodSecurity {level}")))
        .or_else(|| {
            let limits = ["usage per Container", "usage per Pod", "limit to request ratio per"];
            limits.iter().any(|text| message.contains(text)).then(|| "LimitRange".to_owned())
        })
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn outcome(code: u16, message: &str) -> Outcome {
        Outcome::of_error(&Error::Api(Status::failure(message, "X").with_code(code).boxed()), false)
    }

    #[test]
    fn who_refused_is_read_from_the_answer() {
        for (code, message, because) in [
            (403, "pods is forbidden: User \"a\" cannot list resource \"pods\" in API group \"\"", "authorization"),
            (403, "user \"a\" (groups=[]) is attempting to grant RBAC permissions not currently held", "authorization"),
            (403, "admission webhook \"x.example\" denied the request: no", "admission: x.example"),
            (400, "admission webhook \"x.example\" denied the request: no", "admission: x.example"),
            (
                422,
                "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: User \"a\" cannot",
                "admission: p",
            ),
            (
                403,
                "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": x",
                "admission: PodSecurity restricted:latest",
            ),
            (
                403,
                "pods \"a\" is forbidden: maximum cpu usage per Container is 1, but limit is 9",
                "admission: LimitRange",
            ),
            (403, "pods \"a\" is forbidden: PodPriority says no", "admission: a part of the API server"),
            (422, "Pod \"a\" is invalid: spec.x: Forbidden", "schema"),
        ] {
            let found = outcome(code, message);
            assert_eq!((found.name(), found.because().as_str()), ("refused", because), "{message}");
        }
        for (code, message) in [
            (404, "the server could not find the requested resource"),
            (403, "pods \"a\" is forbidden: exceeded quota: q, requested: pods=1"),
            (400, "admission webhook \"x\" does not support dry run"),
            (500, "Internal error occurred: failed calling webhook \"x\": timeout"),
            (400, "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.x\""),
            (429, "too many requests"),
        ] {
            assert_eq!(outcome(code, message).name(), "inconclusive", "{message}");
        }
        assert_eq!(outcome(409, "pods \"a\" already exists"), Outcome::Possible);
    }
}
