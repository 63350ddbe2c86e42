"""The versions of the tables. What was released is never changed; a new version is added behind it."""
