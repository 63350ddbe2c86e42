"""Evidence: what a verification or a rehearsal found, as a document that an auditor can keep and check."""
