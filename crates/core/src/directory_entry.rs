//! From an LDAP entry to a tool or a person.
