"""Files from the network: published weights and public data sets, verified before they are used."""
