package cli

import (
	"slices"

	"github.com/spf13/cobra"
)

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

// containerVerbs are top-level commands that "davit container" holds again.
var containerVerbs = []verb{
	{"run", "run", (*app).runCommand},
	{"create", "run", (*app).createCommand},
	{"start", "run", (*app).startCommand},
	{"stop", "run", (*app).stopCommand},
	{"restart", "run", (*app).restartCommand},
	{"kill", "run", (*app).killCommand},
	{"pause", "run", (*app).pauseCommand},
	{"unpause", "run", (*app).unpauseCommand},
	{"rm", "run", (*app).rmCommand},
	{"ps", "run", (*app).psCommand},
	{"logs", "run", (*app).logsCommand},
	{"exec", "run", (*app).execCommand},
	{"attach", "run", (*app).attachCommand},
	{"inspect", "run", (*app).inspectCommand},
	{"top", "run", (*app).topCommand},
	{"stats", "run", (*app).statsCommand},
	{"wait", "run", (*app).waitCommand},
	{"rename", "run", (*app).renameCommand},
	{"port", "run", (*app).portCommand},
	{"cp", "run", (*app).cpCommand},
	{"diff", "run", (*app).diffCommand},
	{"update", "run", (*app).updateCommand},
	{"replace", "run", (*app).replaceCommand},
	{"export", "run", (*app).exportCommand},
	{"commit", "run", (*app).commitCommand},
}

// verbs are the top-level commands.
var verbs = append(slices.Clone(containerVerbs), []verb{
	{"container", "manage", (*app).containerCommand},
	{"build", "image", (*app).buildCommand},
	{"pull", "image", (*app).pullCommand},
	{"push", "image", (*app).pushCommand},
	{"login", "image", (*app).loginCommand},
	{"logout", "image", (*app).logoutCommand},
	{"search", "image", (*app).searchCommand},
	{"save", "image", (*app).saveCommand},
	{"load", "image", (*app).loadCommand},
	{"import", "image", (*app).importCommand},
	{"tag", "image", (*app).tagCommand},
	{"rollback", "image", (*app).rollbackCommand},
	{"rmi", "image", (*app).rmiCommand},
	{"history", "image", (*app).historyCommand},
	{"images", "image", (*app).imagesCommand},
	{"image", "manage", (*app).imageCommand},
	{"builder", "manage", (*app).builderCommand},
	{"system", "manage", (*app).systemCommand},
	{"info", "system", (*app).infoCommand},
	{"version", "system", (*app).versionCommand},
	{"events", "system", (*app).eventsCommand},
	{"network", "manage", (*app).networkCommand},
	{"volume", "manage", (*app).volumeCommand},
	{"registry", "manage", (*app).registryCommand},
}...)
