package engine

import "math/rand/v2"

// madeUpName returns a name for a container that was given none: what a crane on deck might be called.
func madeUpName() string {
	adjectives := []string{
		"able", "amber", "bold", "brave", "bright", "brisk", "calm", "clever", "coastal", "copper", "curious", "daring",
		"eager", "early", "fair", "fleet", "gentle", "golden", "grand", "hardy", "humble", "jolly", "keen", "kind", "lively",
		"lucky", "mellow", "merry", "mighty", "modest", "nimble", "noble", "patient", "plucky", "polar", "proud", "quick",
		"quiet", "rapid", "ready", "rugged", "salty", "serene", "sharp", "silent", "silver", "steady", "stern", "sturdy",
		"sunny", "swift", "tidy", "trusty", "upbeat", "valiant", "vivid", "warm", "wise", "witty", "zesty",
	}
	nouns := []string{
		"albatross", "anchor", "barge", "beacon", "bosun", "bowline", "brig", "buoy", "capstan", "cargo", "clipper", "compass",
		"cormorant", "crane", "current", "cutter", "deck", "dinghy", "dolphin", "dory", "ferry", "fjord", "galley", "gannet",
		"gull", "halyard", "harbor", "heron", "hull", "keel", "ketch", "lagoon", "lantern", "mast", "mooring", "narwhal",
		"orca", "otter", "pelican", "pilot", "porpoise", "puffin", "quay", "reef", "rigging", "rudder", "sail", "schooner",
		"seal", "sextant", "sloop", "spar", "starboard", "stern", "tern", "tide", "trawler", "tug", "walrus", "windlass",
	}
	return adjectives[rand.IntN(len(adjectives))] + "_" + nouns[rand.IntN(len(nouns))]
}
