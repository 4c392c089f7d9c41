"""The command line; each verb is one module, imported when it is called."""
