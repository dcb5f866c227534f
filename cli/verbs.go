package cli

import "github.com/spf13/cobra"

// verb is a command that is built when it is run, or when help needs all.
type verb struct {
	name  string
	group string
	build func(*app) *cobra.Command
}

var groups = []struct{ id, title string }{
	{"run", "Containers:"},
	{"image", "Images:"},
	{"manage", "Groups of commands:"},
	{"system", "Engine:"},
}

// verbs are the top-level commands. A group ("davit container ls") holds the same commands again.
var verbs = []verb{
	{"images", "image", (*app).imagesCommand},
	{"pull", "image", (*app).pullCommand},
	{"push", "image", (*app).pushCommand},
	{"login", "image", (*app).loginCommand},
	{"logout", "image", (*app).logoutCommand},
	{"search", "image", (*app).searchCommand},
	{"save", "image", (*app).saveCommand},
	{"load", "image", (*app).loadCommand},
	{"import", "image", (*app).importCommand},
	{"tag", "image", (*app).tagCommand},
	{"rmi", "image", (*app).rmiCommand},
	{"history", "image", (*app).historyCommand},
	{"registry", "manage", (*app).registryCommand},
}
