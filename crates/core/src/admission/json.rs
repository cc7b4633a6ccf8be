//! Objects as they were sent: JSON whose texts are borrowed from the bytes that came.
//!
//! `serde_json::Value` copies every name and text and keeps each object in a tree of its own. That was three quarters
//! of what a review cost, and up to eighty times the bytes that were sent. This holds the same with the names of
//! methods that the other has, but lists of exactly the needed length, in the order in which they were written.
//! It leaves out `metadata.managedFields`, about a quarter of most objects, which only the API server reads; and, where
//! the reader says by which tables an object is judged, whatever these do not look at ([`Kept`]).

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::Number;

use super::kept::Kept;

/// Any JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value<'a> {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(Cow<'a, str>),
    /// A list.
    List(Box<[Value<'a>]>),
    /// An object.
    Object(Map<'a>),
}

/// The fields of an object, as they were written. Of two with one name the second counts.
#[derive(Clone, Debug, Default)]
pub struct Map<'a>(Box<[Entry<'a>]>);

type Entry<'a> = (Cow<'a, str>, Value<'a>);

// === impl Value ===

impl<'a> Value<'a> {
    /// What the field `name` of an object holds.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.as_object()?.get(name)
    }

    /// What stands at `/name/name`: names of fields only.
    pub fn pointer(&self, path: &str) -> Option<&Value<'a>> {
        path.split('/').skip(1).try_fold(self, |value, name| value.get(name))
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text that it is.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The truth value that it is.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// The whole number that it is, where it is small enough.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(number) => number.as_i64(),
            _ => None,
        }
    }

    /// The list that it is.
    pub fn as_array(&self) -> Option<&[Value<'a>]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// The object that it is.
    pub fn as_object(&self) -> Option<&Map<'a>> {
        match self {
            Self::Object(map) => Some(map),
            _ => None,
        }
    }
}

impl fmt::Display for Value<'_> {
    /// The JSON, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl<'a> From<&'a serde_json::Value> for Value<'a> {
    fn from(value: &'a serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(truth) => Self::Bool(*truth),
            serde_json::Value::Number(number) => Self::Number(number.clone()),
            serde_json::Value::String(text) => Self::Text(text.into()),
            serde_json::Value::Array(list) => Self::List(list.iter().map(Self::from).collect()),
            serde_json::Value::Object(map) => {
                Self::Object(Map(map.iter().map(|(name, value)| (name.into(), value.into())).collect()))
            }
        }
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(truth) => serializer.serialize_bool(*truth),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(list) => serializer.collect_seq(list),
            Self::Object(map) => serializer.collect_map(map.iter()),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    /// An object of the API: JSON without `metadata.managedFields`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Partly(Kept::Object).deserialize(deserializer)
    }
}

// === impl Map ===

impl<'a> Map<'a> {
    /// What a field holds.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.0.iter().rfind(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Every name.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// Every field.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value<'a>)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
}

impl PartialEq for Map<'_> {
    /// Whether they hold the same, in whatever order.
    fn eq(&self, other: &Self) -> bool {
        if self.0.len() != other.0.len() {
            return false;
        }
        if self.keys().eq(other.keys()) {
            return self.0 == other.0;
        }
        let sorted = |map: &Self| {
            let mut names: Vec<usize> = (0..map.0.len()).collect();
            names.sort_by_key(|&index| map.0.get(index).map(|(name, _)| name.clone()));
            names
        };
        let (ours, theirs) = (sorted(self), sorted(other));
        ours.iter().zip(&theirs).all(|(&ours, &theirs)| self.0.get(ours) == other.0.get(theirs))
    }
}

// === reading ===

/// Of most objects no more names or values are open at once.
const AT_ONCE: usize = 64;

/// The reading of an object of which only this is kept.
pub(super) struct Partly(pub(super) Kept);

/// What has been read of lists and objects that have not ended: each is put together once, when its length is known.
struct Open<'a> {
    names: Vec<Cow<'a, str>>,
    values: Vec<Value<'a>>,
}

/// The reading of a value, which comes to lie on top of what has been read.
struct Reading<'o, 'a> {
    kept: Kept,
    open: &'o mut Open<'a>,
}

/// The reading of a name.
struct Name;

impl<'de> DeserializeSeed<'de> for Partly {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        let mut open = Open { names: Vec::with_capacity(AT_ONCE), values: Vec::with_capacity(AT_ONCE) };
        Reading { kept: self.0, open: &mut open }.deserialize(deserializer)?;
        Ok(open.values.pop().unwrap_or_default())
    }
}

impl<'de: 'a, 'a> DeserializeSeed<'de> for Reading<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.kept {
            Kept::Presence => {
                let there = Option::<IgnoredAny>::deserialize(deserializer)?.is_some();
                self.open.values.push(if there { Value::Bool(true) } else { Value::Null });
                Ok(())
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de: 'a, 'a> Visitor<'de> for Reading<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.open.values.push(Value::Null);
        Ok(())
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<(), E> {
        self.open.values.push(Value::Bool(truth));
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.open.values.push(Value::Number(number.into()));
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.open.values.push(Value::Number(number.into()));
        Ok(())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.open.values.push(Number::from_f64(number).map_or(Value::Null, Value::Number));
        Ok(())
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        self.open.values.push(Value::Text(Cow::Borrowed(self.kept.text(text))));
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.open.values.push(Value::Text(Cow::Owned(self.kept.text(text).to_owned())));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let (start, open, kept) = (self.open.values.len(), self.open, self.kept.entry());
        while list.next_element_seed(Reading { kept, open: &mut *open })?.is_some() {}
        let list = open.values.drain(start..).collect();
        open.values.push(Value::List(list));
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (first_name, first_value, open) = (self.open.names.len(), self.open.values.len(), self.open);
        while let Some(name) = map.next_key_seed(Name)? {
            if matches!(self.kept, Kept::Metadata | Kept::Named) && name == "managedFields" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let kept = self.kept.field(&name);
            open.names.push(name);
            map.next_value_seed(Reading { kept, open: &mut *open })?;
        }
        let entries = open.names.drain(first_name..).zip(open.values.drain(first_value..)).collect();
        open.values.push(Value::Object(Map(entries)));
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<u64>().prop_map(serde_json::Value::from),
            any::<f64>().prop_map(serde_json::Value::from),
            any::<String>().prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::btree_map("[a-c\"\n]{0,2}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_holds_what_serde_json_holds(one in any_json(), other in any_json()) {
            let text = one.to_string();
            let one: serde_json::Value = serde_json::from_str(&text).unwrap();
            let read: Value<'_> = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read, &Value::from(&one));
            prop_assert_eq!(read.to_string(), one.to_string());
            prop_assert_eq!(Value::from(&one) == Value::from(&other), one == other);
        }
    }

    #[test]
    fn fields_are_the_same_in_whatever_order_and_the_second_of_a_name_counts() {
        let read = |text| serde_json::from_str::<Value<'_>>(text).unwrap();
        assert_eq!(read(r#"{"a":1,"b":[{"c":2,"d":3}]}"#), read(r#"{"b":[{"d":3,"c":2}],"a":1}"#));
        assert_ne!(read(r#"{"a":1,"b":2}"#), read(r#"{"b":1,"a":2}"#));
        assert_ne!(read(r#"{"a":1}"#), read(r#"{"a":1,"b":2}"#));
        assert_eq!(read(r#"{"a":1,"a":2}"#).get("a").and_then(Value::as_i64), Some(2));
    }

    #[test]
    fn who_manages_which_field_is_left_out_and_nothing_else() {
        let text = r#"{"managedFields":1,"metadata":{"name":"a","managedFields":[{"f:a":{}}]},
            "spec":{"metadata":{"managedFields":2}},"list":[{"metadata":{"managedFields":3}}]}"#;
        let value: Value<'_> = serde_json::from_str(text).unwrap();
        assert_eq!(
            value.to_string(),
            r#"{"managedFields":1,"metadata":{"name":"a"},"spec":{"metadata":{"managedFields":2}},"list":[{"metadata":{"managedFields":3}}]}"#
        );
        assert_eq!(value.pointer("/metadata/name").and_then(Value::as_str), Some("a"));
        assert_eq!(value.pointer("/metadata/name/b"), None);
    }

    #[test]
    fn a_quantity_is_its_number_however_it_is_written() {
        let read = |cpu: &str| {
            let text = format!(r#"{{"resources":{{"limits":{{"cpu":"{cpu}"}}}},"value":"{cpu}"}}"#);
            let value: Value<'_> = serde_json::from_str(&text).unwrap();
            assert_eq!(value.get("value").and_then(Value::as_str), Some(cpu));
            value.pointer("/resources/limits/cpu").and_then(Value::as_str).unwrap().to_owned()
        };
        for (written, kept) in
            [("1", "1"), ("01", "1"), ("+1", "1"), ("00500m", "500m"), ("010Mi", "10Mi"), ("0", "0"), ("00", "0")]
        {
            assert_eq!(read(written), kept, "{written}");
        }
        assert_eq!(
            (read("0.5"), read("000m"), read(""), read("é")),
            ("0.5".into(), "0m".into(), "".into(), "é".into())
        );
    }
}
