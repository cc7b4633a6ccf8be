//! Speaking LDAP: reading, following and editing the directory of people and tools.
