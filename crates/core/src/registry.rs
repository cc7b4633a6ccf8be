//! Who may pull and push what.
