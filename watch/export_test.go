package watch

// Tell is what Files does with the events of the system.
var Tell = tell
