//! Accounts: from the directory to the cluster. A pure plan of what to change.
