//! The lists in CEL: the counterpart of `admission::listed`, arm by arm.

use serde_json::Value;

use super::super::Rules;
use super::super::fields::{ROLES, Role, Section};
use super::super::listed::Listed;
use super::expression::{list, literal};
use super::{part, variable};
use crate::names::{PLATFORM_NAMESPACE, label};

/// Whether a value is right; nothing where any is.
pub(super) fn test(rules: &Rules, listed: Listed, value: &str) -> Option<String> {
    Some(match listed {
        Listed::Account => format!("{value} in [\"\", \"default\", variables.account]"),
        Listed::PriorityClass => {
            let classes = rules.priority_classes.iter().map(String::as_str);
            format!("{value} in {}", list(&std::iter::once("").chain(classes).collect::<Vec<_>>()))
        }
        Listed::Path => {
            let paths: Vec<&str> = rules.mounts.iter().map(|mount| mount.path.as_str()).collect();
            format!("({value} == variables.home || {value} in {})", list(&paths))
        }
        Listed::Mount if !rules.mounts.iter().any(|mount| mount.read_only) => return None,
        Listed::Mount => {
            format!("({value}.?readOnly.orValue(false) || !({value}.?name.orValue(\"\") in variables.readonly))")
        }
        Listed::RoleCapabilities => format!("{value}.all(k, k in variables.capabilities)"),
        Listed::RolePath => format!("{value} in variables.paths"),
        Listed::RoleEscalation => format!("({value} == false || variables.escalates)"),
    })
}

/// The names of a pod's volumes that must be mounted read-only.
pub(super) fn read_only(rules: &Rules, pod: &str) -> Value {
    let paths: Vec<&str> =
        rules.mounts.iter().filter(|mount| mount.read_only).map(|mount| mount.path.as_str()).collect();
    let is_listed = format!("v.?hostPath.?path.orValue(\"\") in {}", list(&paths));
    variable(
        "readonly",
        format!("{pod}[?\"volumes\"].orValue([]).filter(v, {is_listed}).map(v, v.?name.orValue(\"\"))"),
    )
}

/// What the platform's roles are listed for, as variables of the policies for the platform's namespaces.
pub(super) fn role(sections: &[Section]) -> Vec<Value> {
    let metadata = sections.first().map(Section::metadata).unwrap_or_default();
    let named = format!("{}.?labels[?{}].orValue(\"\")", part("object", &metadata), literal(label::ROLE));
    let platform = format!("namespaceObject.metadata.name == {}", literal(PLATFORM_NAMESPACE));
    let table = |what: fn(&Role) -> &'static [&'static str]| {
        let rows: Vec<String> =
            ROLES.iter().map(|role| format!("{}: {}", literal(role.name), list(what(role)))).collect();
        format!("{{{}}}[?variables.role].orValue([])", rows.join(", "))
    };
    let escalating: Vec<&str> = ROLES.iter().filter(|role| role.escalates).map(|role| role.name).collect();
    vec![
        variable("role", format!("{platform} ? string({named}) : \"\"")),
        variable("capabilities", table(|role| role.capabilities)),
        variable("paths", table(|role| role.paths)),
        variable("escalates", format!("variables.role in {}", list(&escalating))),
    ]
}
