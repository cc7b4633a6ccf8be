//! Web services: what `webservice start` makes.
