# A tool's files are for all its maintainers and for nobody else; a person's home is closed anyway.
umask 0007
# kubectl reads ~/.kube/config, which is the account's own, whatever the caller had set.
unset KUBECONFIG
