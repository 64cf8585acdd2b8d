package meta

import "warren/mq"

// The operations on users that two operators may send at once change one
// thing each: a new password must not take back the tags that somebody else
// has just given.

func (s *State) userAdd(op UserAdd) Result {
	if err := checkName("user", op.Name); err != nil {
		return refuse(err)
	}
	if _, ok := s.users.get([]byte(op.Name)); ok {
		return refuse(mq.Errorf(mq.PreconditionFailed, "User \"%s\" already exists", op.Name))
	}
	return s.userPut(UserPut(op))
}

func (s *State) userPassword(op UserPassword) Result {
	return s.userChange(op.Name, func(u *User) { u.PasswordHash, u.Algorithm = op.PasswordHash, op.Algorithm })
}

func (s *State) userTags(op UserTags) Result {
	return s.userChange(op.Name, func(u *User) { u.Tags = op.Tags })
}

func (s *State) userChange(name string, change func(*User)) Result {
	old, ok := s.users.get([]byte(name))
	if !ok {
		return refuse(NoUser(name))
	}
	next := *old
	change(&next)
	s.users.put([]byte(name), &next)
	s.changed(PermissionsChanged{})
	return Result{Value: true}
}

// NoUser is what an operator hears of a user that is not there.
func NoUser(name string) *mq.Error { return mq.Errorf(mq.NotFound, "User \"%s\" does not exist", name) }

// NoVHost is what an operator hears of a vhost that is not there.
func NoVHost(name string) *mq.Error {
	return mq.Errorf(mq.NotFound, "Virtual host '%s' does not exist", name)
}
