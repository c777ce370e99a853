"""One module a tab of the page, and the widgets that tabs share."""
